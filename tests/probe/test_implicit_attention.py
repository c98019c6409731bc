"""Implicit attention of every mixer: causal, and where it is exact it makes the outputs out of the values."""

import pytest
import torch

import runnel
from runnel.probe import implicit_attention, influence
from tests.conformance.conftest import close, make, pages
from tests.mixers.support import links_of_a_model

EXACT = {
    "attend": "attention",
    "outer_scan": "retnet",
    "delta_scan": "gated_deltanet",
    "dplr_scan": "rwkv7",
    "diagonal_scan": "mingru",
    "selective_scan": "mamba",
}
LENGTH = 6


def inputs(rows: int = 2, length: int = LENGTH) -> torch.Tensor:
    return torch.randn(rows, length, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(5))


@pytest.mark.parametrize("pattern", pages())
def test_maps_are_causal_and_exact_ones_make_the_outputs(pattern):
    mixer = make(pattern).layers[0].mixer
    found = implicit_attention(mixer, inputs(), links_of_a_model(inputs()))
    assert found.weights.shape[0] == 2
    assert found.weights.shape[2:] == (LENGTH, LENGTH)
    assert found.weights.abs().sum() > 0
    assert found.weights.triu(1).abs().max() == 0
    if found.primitive is not None:
        close(torch.einsum("bhtj,bjhv->bthv", found.weights, found.values), found.outputs)


@pytest.mark.parametrize(("primitive", "name"), EXACT.items())
def test_every_linear_primitive_has_a_mixer_with_an_exact_map(primitive, name):
    assert implicit_attention(make(name).layers[0].mixer, inputs()).primitive == primitive


def test_attention_gives_its_own_weights():
    mixer = make("attention(head_dim=4, qk_norm=False)").layers[0].mixer
    x = inputs()
    q, k, _ = mixer._project(x, torch.arange(LENGTH)[None])
    scores = torch.einsum("bthk,bjhk->bhtj", q, k) / 2
    hidden = torch.ones(LENGTH, LENGTH, dtype=torch.bool).triu(1)
    close(implicit_attention(mixer, x).weights, scores.masked_fill(hidden, -torch.inf).softmax(-1))


def test_later_tokens_change_no_earlier_weight():
    mixer = make("retnet").layers[0].mixer
    whole = implicit_attention(mixer, inputs()).weights
    close(implicit_attention(mixer, inputs()[:, :4]).weights, whole[:, :, :4, :4])


def test_influence_is_the_jacobian():
    mixer, x = make("gru").layers[0].mixer, inputs(rows=1, length=4)

    def run(x: torch.Tensor) -> torch.Tensor:
        return mixer(x, mixer.init_state(1), runnel.Lineage.sequence(1, 4))[0]

    jacobian = torch.autograd.functional.jacobian(run, x)[0, :, :, 0]  # (T, D, T, D)
    close(influence(mixer, x)[0], jacobian.pow(2).sum((1, 3)).sqrt())
    assert implicit_attention(mixer, x).primitive is None
    close(implicit_attention(mixer, x).weights[:, 0], influence(mixer, x))
