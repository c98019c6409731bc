"""Parallel = chunks = steps: outputs, states, gradients, at every split point. All in float64, to 1e-9."""

import pytest
import torch

import runnel
from runnel.links import call, literal, taken
from runnel.state import leaves, map_memory

from .conftest import VOCAB, close, gradients, make, pages, same_state, tokens


@pytest.mark.parametrize("pattern", pages())
def test_mixer_equals_its_paper_loop(pattern):
    """The page's forward against the literal loop that stands under it."""
    model = make(pattern)
    mixer, links = model.mixers[-1], taken_by_the_last(model, tokens(2, 9))
    x = torch.randn(2, 9, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(3), requires_grad=True)
    y, _, _ = call(mixer, x, mixer.init_state(2), runnel.Lineage.sequence(2, 9), links)
    expected = literal(mixer, x, links)
    assert expected.abs().max() > 1e-3, "a reference of nearly nothing proves nothing"
    close(y, expected)
    weights = torch.randn(y.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(4))
    given = [leaf for leaf in leaves(tuple(links.values())) if leaf.is_floating_point()]
    inputs = [x, *given, *mixer.parameters()]  # those of a prefix form have no part in this: their gradients are zero
    for got, want in zip(
        torch.autograd.grad((y * weights).sum(), inputs, materialize_grads=True),
        torch.autograd.grad((expected * weights).sum(), inputs, materialize_grads=True),
        strict=True,
    ):
        close(got, want)


def taken_by_the_last(model, x):
    """The links that the last layer takes, cut from what made them."""
    seen = []
    last = model.layers[-1]
    hook = last.register_forward_pre_hook(lambda _, arguments: seen.append((*arguments, {})[3]))
    with torch.no_grad():
        model.features(x)
    hook.remove()
    wanted = {name: seen[0][name] for name in taken(last.mixer)}
    return {
        name: map_memory(lambda v: v.detach().requires_grad_(v.is_floating_point()), v) for name, v in wanted.items()
    }


def run_pieces(model, x, cuts):
    """Logits and state of x, fed in pieces that end at the given cuts."""
    state, pieces, start = None, [], 0
    for end in [*cuts, x.shape[1]]:
        logits, state = model(x[:, start:end], state)
        pieces.append(logits)
        start = end
    return torch.cat(pieces, dim=1), state


def test_every_split_point(model):
    x = tokens(2, 9)
    whole, state = model(x)
    assert state.lengths.tolist() == [9, 9]
    expected = gradients(model, whole.pow(2).sum() + sum(leaf.sum() for leaf in leaves(state.layers)))
    for cuts in [*[[cut] for cut in range(1, 9)], list(range(1, 9)), [1, 4, 5]]:
        logits, last = run_pieces(model, x, cuts)
        close(logits, whole)
        same_state(last, state)
        got = gradients(model, logits.pow(2).sum() + sum(leaf.sum() for leaf in leaves(last.layers)))
        for a, b in zip(got, expected, strict=True):
            close(a, b)


@pytest.mark.parametrize("length", [1, 2, 3, 63, 64, 65, 150])
def test_lengths_around_chunk_borders(model, length):
    """Also inputs shorter than the convolution's width: its tail must come out right."""
    x = tokens(2, length, seed=length)
    with torch.no_grad():
        whole, state = model(x)
        steps, last = run_pieces(model, x, range(1, length))
        close(steps, whole)
        same_state(last, state)
        close(model(x[:, :1], state)[0], model(x[:, :1], last)[0])


def test_causality(model):
    """No logit depends on a later token; every later logit may."""
    x = tokens(1, 12)
    y = x.clone()
    y[:, 7] = (y[:, 7] + 1) % VOCAB
    with torch.no_grad():
        a, b = model(x)[0], model(y)[0]
    close(a[:, :7], b[:, :7], bound=1e-12)
    assert not torch.allclose(a[:, 7], b[:, 7])


def test_rows_do_not_see_each_other(model):
    x = tokens(4, 20)
    order = torch.tensor([2, 0, 3, 1])
    with torch.no_grad():
        logits, state = model(x)
        shuffled, after = model(x[order])
        close(shuffled, logits[order])
        same_state(after, state.fork(order))
        for row in range(4):
            alone, last = model(x[row : row + 1])
            close(alone[0], logits[row])
            same_state(last, state.fork([row]))


def test_float32_is_close_and_bfloat16_autocast_runs(model):
    x = tokens(2, 70)
    single = runnel.build(**model.config.to_dict())
    single.load_state_dict(model.state_dict())
    with torch.no_grad():
        exact, _ = model(x)
        close(single(x)[0].double(), exact, bound=1e-3)
        with torch.autocast("cpu", torch.bfloat16):
            rough, state = single(x)
            step, _ = single(x[:, :1], state)
    assert rough.isfinite().all() and step.isfinite().all()
    assert all(leaf.dtype != torch.bfloat16 for leaf in leaves(state.layers) if leaf.dim() == 4 and leaf.shape[1] == 1)
