"""Entrants: patterns are parted where they end, widths make sizes equal, and costs are what a run shows."""

import pytest

import runnel
from runnel.compare import cost
from runnel.compare.entrants import parse_entrants, split_patterns


def test_commas_inside_parentheses_belong_to_the_pattern():
    text = "mamba2, gla(expand_k=1.0, gate_rank=4),(mamba2*3, attention(window=4))*2"
    assert split_patterns(text) == ["mamba2", "gla(expand_k=1.0, gate_rank=4)", "(mamba2*3, attention(window=4))*2"]


def test_patterns_are_repeated_to_enough_layers():
    found = parse_entrants("mingru,(gla*2,attention)", 16, 4, "none", 7)
    assert [(entrant.n_layers, len(entrant.build(7).layers)) for entrant in found] == [(4, 4), (6, 6)]


@pytest.mark.parametrize(
    ("what", "measure", "slack", "models"),
    [
        ("params", cost.parameters, 0.05, "mamba2,mingru,gla"),
        ("flops", cost.flops_per_token, 0.05, "mamba2,mingru,gla"),
        ("state", lambda model: cost.sizes(model, [32_768])[0], 0.25, "gla,linear_attention"),
    ],
)
def test_widths_make_sizes_equal(what, measure, slack, models):
    first, *others = parse_entrants(models, 64, 2, what, 50)
    wanted = measure(first.build(50))
    for entrant in others:
        found = measure(entrant.build(50)) / wanted
        assert found == pytest.approx(entrant.size)
        assert abs(found - 1) < slack, entrant
        assert entrant.d_model != first.d_model


def test_a_fixed_width_of_heads_leaves_its_multiples():
    _, other = parse_entrants("mamba2,gla(head_dim=64)", 128, 2, "params", 50)
    assert other.d_model % 64 == 0
    assert other.size == cost.parameters(other.build(50)) / cost.parameters(runnel.build("mamba2", 50, 128, 2))


@pytest.mark.parametrize("pattern", ["attention", "attention(window=64)", "mamba2", "(gla, attention)"])
def test_told_bytes_of_a_state_are_those_of_a_state(pattern):
    import torch

    model = runnel.build(pattern, vocab_size=5, d_model=8, n_layers=2)
    with torch.no_grad():
        _, state = model(torch.zeros(1, 3000, dtype=torch.long))
    assert cost.sizes(model, [3000])[0] == state.nbytes - state.lengths.nbytes


def test_operations_of_attention_by_hand():
    model = runnel.build("attention", vocab_size=5, d_model=8, n_layers=1, channel=None)
    weights = cost.parameters(model) - 5 * 8
    keys_and_values = 2 * 8 * cost.CONTEXT
    assert cost.flops_per_token(model) == 2 * weights + 2 * keys_and_values


@pytest.mark.parametrize(
    ("text", "equal", "message"),
    [
        ("mamba2,,gla", "none", "commas between them"),
        ("", "none", "commas between them"),
        ("mamba22", "none", "did you mean 'mamba2'"),
        ("mamba2*", "none", "after '\\*'"),
        ("gla,gla", "none", "must differ"),
        ("gla", "size", "one of none, params, state, flops"),
        ("mingru,attention", "state", "attention cannot be made equal in state"),
    ],
)
def test_mistakes_are_one_clear_line(text, equal, message):
    with pytest.raises(ValueError, match=message) as caught:
        parse_entrants(text, 16, 2, equal, 5)
    assert "\n" not in str(caught.value)
