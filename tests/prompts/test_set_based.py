import itertools

import pytest
import torch

import runnel
from runnel.decoders import beam
from runnel.prompts import set_based
from runnel.state import State, leaves
from tests.decoding.support import CASES, sharp

MERGING = ["attention", "attention(kv_heads=1), linear_attention(conv=1)", "based*2", "rebased, attention, based"]
BEFORE, PARTS, AFTER = [[1, 2, 3], [4], []], [[[0, 1], [2, 4, 4, 1], [3]], [], [[2, 2], [0]]], [[4, 1], [0], [1, 1, 2]]


def after_set(model, before, parts, after):
    """The logits of what follows the set, one row."""
    state = set_based.read(model, [before], [parts])
    return model(torch.tensor([after]), state)[0].detach()


@pytest.mark.parametrize("pattern", MERGING)
def test_the_order_of_the_parts_does_not_matter(pattern):
    model, parts = sharp(pattern), PARTS[0]
    ordered = after_set(model, BEFORE[0], parts, AFTER[0])
    for other in itertools.permutations(parts):
        torch.testing.assert_close(after_set(model, BEFORE[0], other, AFTER[0]), ordered, rtol=0, atol=1e-9)
    plain = [
        model(torch.tensor([[*BEFORE[0], *itertools.chain(*other), *AFTER[0]]]))[0][:, -2:]
        for other in itertools.permutations(parts)
    ]
    assert min((plain[0] - other).abs().max() for other in plain[1:]) > 1e-3
    assert (plain[0] - ordered).abs().max() > 1e-3


@pytest.mark.parametrize("pattern", MERGING)
def test_it_is_every_part_read_alone(pattern):
    model = sharp(pattern)
    found = set_based.read(model, BEFORE[:1], PARTS[:1])
    expected = set_based.reference(model, BEFORE[0], PARTS[0])
    for one, other in zip(leaves(found.layers), leaves(expected.layers), strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-9)
    assert found.lengths.tolist() == expected.lengths.tolist() == [3 + 4]


def test_it_is_the_papers_mask_and_positions():
    """One layer of attention, by hand: who is seen, and where each token stands."""
    model = sharp("attention")
    before, parts, after = BEFORE[0], PARTS[0], AFTER[0]
    tokens, seen, places = [*before], [list(range(t + 1)) for t in range(3)], [0, 1, 2]
    for part in parts:
        first = len(tokens)
        seen += [[0, 1, 2, *range(first, first + j + 1)] for j in range(len(part))]
        places += [3 + j for j in range(len(part))]
        tokens += part
    seen += [list(range(len(tokens) + j + 1)) for j in range(len(after))]
    places += [7 + j for j in range(len(after))]
    tokens += after
    layer = model.layers[0]
    x = model.embed(torch.tensor([tokens]))
    q, k, v = layer.mixer._project(layer.mixer_norm(x), torch.tensor([places]))
    y = torch.zeros_like(q)
    for t, own in enumerate(seen):
        weights = ((q[:, t, None] * k[:, own]).sum(-1) * q.shape[-1] ** -0.5).softmax(1)
        y[:, t] = (weights[..., None] * v[:, own]).sum(1)
    x = x + layer.mixer.out(y.flatten(-2))
    x = x + layer.block(layer.block_norm(x))
    expected = model.head(model.norm(x))[:, -len(after) :]
    torch.testing.assert_close(after_set(model, before, parts, after), expected.detach(), rtol=0, atol=1e-9)


@pytest.mark.parametrize("pattern", MERGING)
def test_ragged_rows_are_rows_alone_and_any_decoder_goes_on(pattern, tmp_path):
    model = sharp(pattern)
    state = set_based.read(model, BEFORE, PARTS)
    assert state.lengths.tolist() == [7, 1, 2]
    options = {"max_new_tokens": 8, "temperature": 1.5}
    together = runnel.generate(model, AFTER, state=state, seed=[3, 5, 8], **options)
    for row in range(3):
        own = set_based.read(model, BEFORE[row : row + 1], PARTS[row : row + 1])
        alone = runnel.generate(model, AFTER[row : row + 1], state=own, seed=[3, 5, 8][row], **options)
        assert alone.tokens[0] == together.tokens[row]
    state.save(tmp_path / "set.state")
    loaded = State.load(tmp_path / "set.state", model)
    for drafter in [make(model) for make in CASES.values()]:
        found = runnel.generate(model, AFTER, state=loaded, seed=[3, 5, 8], drafter=drafter, **options)
        assert found.tokens == together.tokens, drafter
    greedy = runnel.generate(model, AFTER, 8, decoder="greedy", state=state)
    assert runnel.generate(model, AFTER, 8, decoder=beam.Config(width=1), state=state).tokens == greedy.tokens


def test_two_sets_are_read_one_after_the_other():
    model = sharp("attention")
    logits = []
    for first in (PARTS[0], PARTS[0][::-1]):
        state = set_based.read(model, [[1]], [first])
        state = set_based.read(model, [[2, 0]], [PARTS[2]], state)
        logits.append(model(torch.tensor([[1, 2]]), state)[0].detach())
        assert state.lengths.tolist() == [1 + 4 + 2 + 2]
    torch.testing.assert_close(*logits, rtol=0, atol=1e-9)


def test_a_set_of_one_part_is_a_sequence():
    model = sharp("attention, based")
    logits = after_set(model, [1, 2], [[3, 4, 0]], [1, 1])
    torch.testing.assert_close(logits, model(torch.tensor([[1, 2, 3, 4, 0, 1, 1]]))[0][:, -2:].detach())


def test_mixers_that_keep_an_order_are_refused_by_name():
    for name in ("mamba2", "mingru", "gated_deltanet", "slstm", "rwkv7", "gla", "linear_attention", "retnet"):
        with pytest.raises(ValueError, match=f"a set is read side by side.*; {name} keeps one"):
            set_based.read(sharp(f"attention, {name}"), BEFORE, PARTS)
    with pytest.raises(ValueError, match="; attention keeps one"):
        set_based.read(sharp("attention(window=5)"), BEFORE, PARTS)
    with pytest.raises(ValueError, match="one list of parts for each of the 3 rows; got 1"):
        set_based.read(sharp("attention"), BEFORE, PARTS[:1])
