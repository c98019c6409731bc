"""Packed and padded = alone; a tree = each of its paths; commit = steps."""

import random

import pytest
import torch

import runnel
from runnel.state import leaves

from .conftest import VOCAB, close, gradients, same_state, tokens

DOCUMENTS = (5, 1, 8, 3)


def placements(length: int, width: int, seed: int) -> dict[str, list[int]]:
    """Columns for a document of some length in a row of `width`: at the left, at the right, anywhere in order."""
    scattered = sorted(random.Random(seed).sample(range(width), length))
    return {"right": list(range(length)), "left": list(range(width - length, width)), "scattered": scattered}


@pytest.mark.parametrize("kind", ["left", "right", "scattered"])
@pytest.mark.parametrize("warm", [False, True])
def test_padding(model, kind, warm):
    """Whatever stands at padding, rows get exactly what they get alone: logits, states, gradients."""
    width = 9
    begun = model(tokens(len(DOCUMENTS), 4, seed=5))[1].detach() if warm else model.init_state(len(DOCUMENTS))
    x, valid = tokens(len(DOCUMENTS), width, seed=9), torch.zeros(len(DOCUMENTS), width, dtype=torch.bool)
    columns = [placements(n, width, seed=n)[kind] for n in DOCUMENTS]
    for row, own in enumerate(columns):
        valid[row, own] = True
    logits, state = model(x, begun, runnel.Lineage.padded(valid))
    loss, alone_loss = (logits[valid] ** 2).sum(), 0.0
    for row, own in enumerate(columns):
        alone, last = model(x[row : row + 1, own], begun.fork([row]))
        close(logits[row, own], alone[0])
        step = torch.ones(1, 1, dtype=torch.long)
        close(model(step, state.fork([row]))[0], model(step, last)[0])
        assert state.lengths[row] == last.lengths[0] == len(own) + 4 * warm
        alone_loss = alone_loss + (alone**2).sum()
    for a, b in zip(gradients(model, loss), gradients(model, alone_loss), strict=True):
        close(a, b)
    other = torch.where(valid, x, (x + 3) % VOCAB)
    close(model(other, begun, runnel.Lineage.padded(valid))[0][valid], logits[valid], bound=1e-12)


def test_a_row_of_nothing_but_padding_is_unchanged(model):
    begun = model(tokens(2, 4))[1]
    valid = torch.tensor([[True, True, True], [False, False, False]])
    _, state = model(tokens(2, 3), begun, runnel.Lineage.padded(valid))
    step = torch.ones(1, 1, dtype=torch.long)
    close(model(step, state.fork([1]))[0], model(step, begun.fork([1]))[0])
    assert state.lengths.tolist() == [7, 4]


@pytest.mark.parametrize("lengths", [[[4, 1, 7], [12]], [[1, 1, 1, 9], [6, 6]], [[70, 5, 60], [64, 71]]])
def test_packing(model, lengths):
    """Documents in one row: nothing crosses a border, in either direction."""
    rows = [torch.cat([torch.full((n,), i + 7) for i, n in enumerate(row)]) for row in lengths]
    width = max(len(row) for row in rows) + 2
    segments = torch.stack([torch.nn.functional.pad(row, (0, width - len(row)), value=-1) for row in rows])
    x = tokens(len(rows), width, seed=2)
    logits, state = model(x, lineage=runnel.Lineage.packed(segments))
    loss, alone_loss = (logits[segments >= 0] ** 2).sum(), 0.0
    for row, sizes in enumerate(lengths):
        start = 0
        for size in sizes:
            alone, last = model(x[row : row + 1, start : start + size])
            close(logits[row, start : start + size], alone[0])
            alone_loss = alone_loss + (alone**2).sum()
            start += size
        step = torch.ones(1, 1, dtype=torch.long)
        close(model(step, state.fork([row]))[0], model(step, last)[0])
        assert state.lengths[row] == sizes[-1]
    for a, b in zip(gradients(model, loss), gradients(model, alone_loss), strict=True):
        close(a, b)


def test_packing_continues_the_state_in_the_first_document_only(model):
    begun = model(tokens(1, 5, seed=1))[1]
    x = tokens(1, 8, seed=2)
    segments = torch.tensor([[0, 0, 0, 1, 1, 1, 1, 1]])
    logits, state = model(x, begun, runnel.Lineage.packed(segments))
    close(logits[:, :3], model(x[:, :3], begun)[0])
    alone, last = model(x[:, 3:])
    close(logits[:, 3:], alone)
    same_state(state, last)


def random_tree(sizes: list[int], seed: int) -> runnel.DraftTree:
    """Rows of the given sizes, nodes of all rows shuffled together as far as parents allow."""
    rng = random.Random(seed)
    order = [row for row, size in enumerate(sizes) for _ in range(size)]
    rng.shuffle(order)
    parents, seen = [], {row: [-1] for row in range(len(sizes))}
    for node, row in enumerate(order):
        parents.append(rng.choice(seen[row]))
        seen[row].append(node)
    return runnel.DraftTree([rng.randrange(VOCAB) for _ in order], parents, order)


def chains(sizes: list[int], seed: int) -> runnel.DraftTree:
    """One path per row, of different lengths."""
    rows = [row for row, size in enumerate(sizes) for _ in range(size)]
    parents = [node - 1 if node and rows[node - 1] == row else -1 for node, row in enumerate(rows)]
    return runnel.DraftTree(tokens(1, len(rows), seed)[0], parents, rows)


def path_to(tree: runnel.DraftTree, node: int) -> list[int]:
    path = [node]
    while int(tree.parents[path[0]]) >= 0:
        path.insert(0, int(tree.parents[path[0]]))
    return path


@pytest.mark.parametrize("grown", [random_tree, chains])
@pytest.mark.parametrize("begin", [0, 6, 70])
def test_tree_equals_its_paths_and_commit_equals_steps(model, begin, grown):
    sizes = [14, 3, 0, 9]
    state = model(tokens(4, begin, seed=3))[1] if begin else model.init_state(4)
    tree = grown(sizes, seed=begin)
    with torch.no_grad():
        before = [leaf.clone() for leaf in leaves(state.layers)]
        out = model.verify(state, tree)
        assert out.logits.shape == (sum(sizes), VOCAB) and out.hidden.shape == (sum(sizes), 8)
        assert all(torch.equal(a, b) for a, b in zip(before, leaves(state.layers), strict=True)), (
            "verify changed the state"
        )
        for node in range(len(tree)):
            path, row = path_to(tree, node), int(tree.rows[node])
            alone, _ = model(tree.tokens[path][None], state.fork([row]))
            close(out.logits[node], alone[0, -1])
        for attempt in range(4):
            paths = chosen_paths(tree, sizes, attempt)
            after = state.commit(out.pending, paths)
            check_commit(model, state, tree, paths, after)


def chosen_paths(tree, sizes, seed):
    """A random node of every row, or none; paths of different lengths, zero among them."""
    rng = random.Random(seed)
    paths = []
    for row in range(len(sizes)):
        nodes = [node for node in range(len(tree)) if tree.rows[node] == row]
        paths.append(path_to(tree, rng.choice(nodes)) if nodes and rng.random() < 0.8 else [])
    return paths


def check_commit(model, state, tree, paths, after):
    step = torch.full((1, 1), 3)
    for row, path in enumerate(paths):
        expected = state.fork([row])
        if path:
            _, expected = model(tree.tokens[path][None], expected)
        assert after.lengths[row] == expected.lengths[0]
        close(model(step, after.fork([row]))[0], model(step, expected)[0])
        if all(len(p) == len(path) for p in paths):
            same_state(after.fork([row]), expected)


def test_tree_of_nothing(model):
    state = model(tokens(2, 5))[1]
    out = model.verify(state, runnel.DraftTree([], [], []))
    assert out.logits.shape == (0, VOCAB)
    assert state.commit(out.pending, [[], []]) is state


def test_many_rounds_of_accepting_and_rejecting(model):
    """Two hundred rounds of drafting and committing end in the state of plain steps."""
    rng = random.Random(1)
    state, plain = model.init_state(2), [[], []]
    with torch.no_grad():
        for turn in range(200):
            tree = random_tree([rng.randrange(4), rng.randrange(4)], seed=turn)
            paths = chosen_paths(tree, [0, 0], turn)
            state = state.commit(model.verify(state, tree).pending, paths)
            for row, path in enumerate(paths):
                plain[row] += tree.tokens[path].tolist()
        for row, text in enumerate(plain):
            expected = model(torch.tensor([text]))[1]
            step = torch.full((1, 1), 3)
            assert state.lengths[row] == len(text)
            close(model(step, state.fork([row]))[0], model(step, expected)[0])


def test_a_chain_as_tree_equals_the_sequence(model):
    x = tokens(2, 12)
    tree = runnel.DraftTree(x.flatten(), [*range(-1, 11), -1, *range(12, 23)], [0] * 12 + [1] * 12)
    state = model.init_state(2)
    out = model.verify(state, tree)
    logits, last = model(x)
    close(out.logits.view(2, 12, VOCAB), logits)
    same_state(state.commit(out.pending, [list(range(12)), list(range(12, 24))]), last)
