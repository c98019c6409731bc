import random

import numpy as np
import pytest
import torch

from runnel.drafters import Seen, token_recycling
from runnel.drafters.token_recycling import Config, TokenRecycling


def seen_of(tokens, parents, path, logits):
    return Seen(tokens, parents, path, logits, torch.zeros(len(tokens), 1))


def paths_of(draft):
    found = []
    for node, parent in enumerate(draft.parents):
        assert -1 <= parent < node
        found.append((*(found[parent] if parent >= 0 else ()), draft.tokens[node]))
    return found


@pytest.mark.parametrize("config", [Config(), Config(top_k=2, nodes=6), Config(top_k=20, nodes=40)])
def test_it_drafts_the_template_over_the_rows_that_were_written_last(config):
    """Random rounds: the matrix is a dictionary of the newest top-k lists, the tree is that of walking every path."""
    rng, generator, vocab = random.Random(0), torch.Generator().manual_seed(0), 7
    drafter, drafted = TokenRecycling(config), 0
    memory, rows, newest = drafter.begin([1, 2], draw=None), {}, 2
    for _ in range(60):
        budget = rng.randrange(1, 7)
        draft = drafter.propose(memory, budget)
        paths = paths_of(draft)
        assert set(paths) == token_recycling.reference(rows, newest, token_recycling.template(config), budget)
        assert len(set(paths)) == len(paths) and len(paths) <= config.nodes
        drafted += len(paths)
        tokens, parents = [newest, *draft.tokens], [-1, *[parent + 1 for parent in draft.parents]]
        path = [0]
        while below := [node for node, parent in enumerate(parents) if parent == path[-1] and rng.random() < 0.5]:
            path.append(below[0])
        logits = torch.randn(len(tokens), vocab, generator=generator, dtype=torch.float64)
        drafter.look_back(memory, seen_of(tokens, parents, path, logits))
        for node in [*[node for node in range(len(tokens)) if node not in path], *path]:
            rows[tokens[node]] = logits[node].argsort(descending=True)[: config.top_k].tolist()
        newest = rng.randrange(vocab)
        drafter.advance(memory, [*[tokens[node] for node in path[1:]], newest])
    assert drafted > 200


def test_the_matrix_takes_vocabulary_times_k_numbers():
    drafter = TokenRecycling(Config(top_k=3))
    memory = drafter.begin([1], draw=None)
    assert memory.table is None and drafter.propose(memory, 5).tokens == []
    drafter.look_back(memory, seen_of([1], [-1], [0], torch.arange(50.0, dtype=torch.float64)[None]))
    assert memory.table.nbytes == 50 * 3 * 4 and memory.table.dtype == np.int32
    assert memory.after(1) == [49, 48, 47] and memory.after(2) == []


def test_rows_of_a_batch_know_nothing_of_each_other():
    drafter = TokenRecycling(Config())
    one, other = drafter.begin([1], draw=None), drafter.begin([1], draw=None)
    drafter.look_back(one, seen_of([1], [-1], [0], torch.eye(4, dtype=torch.float64)[:1]))
    assert drafter.propose(one, 2).tokens and not drafter.propose(other, 2).tokens


def test_the_template_holds_the_likeliest_paths_with_their_beginnings():
    paths = token_recycling.template(Config(top_k=8, nodes=80))
    assert [len(path) for path in paths] == sorted(len(path) for path in paths) and len(set(paths)) == 80
    assert all(path[:-1] in paths for path in paths if len(path) > 1)
    # the first two levels of the paper's 80 nodes: how many ranks follow each rank
    assert [sum(path[:-1] == (rank,) for path in paths) for rank in range(8)] == [8, 4, 3, 2, 1, 1, 1, 1]
    assert sum(len(path) == 1 for path in paths) == 8
    assert token_recycling.template(Config(top_k=1, nodes=3)) == [(0,), (0, 0), (0, 0, 0)]


@pytest.mark.parametrize("option", ["top_k", "nodes"])
def test_impossible_options_are_refused(option):
    with pytest.raises(ValueError, match=f"{option} must be at least 1; got 0"):
        Config(**{option: 0})
