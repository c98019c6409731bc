"""Scans in C++ against the literal loops in float64: outputs, last states, gradients, on every instruction set."""

from contextlib import nullcontext
from functools import partial

import pytest
import torch

import runnel
from runnel import catalog, native
from runnel.lineage import Lineage
from runnel.links import call
from runnel.native import scans
from runnel.ops import conv, scan, selective
from runnel.state import leaves
from tests.mixers.support import links_of_a_model
from tests.mixers.support import mixer as make_mixer

pytestmark = pytest.mark.skipif(not native.available(), reason="the extension was not built")

SIZES = [(1, 2, 1), (2, 3, 3), (1, 65, 17), (2, 33, 16), (1, 7, 4097), (1, 4097, 3)]
"""Rows, tokens, channels."""


@pytest.fixture(params=native.instruction_sets())
def instruction_set(request):
    native.use(request.param)
    yield request.param
    native.use(native.instruction_sets()[0])


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed + sum(shape)))


def compare(function, oracle, inputs, bound=1e-5):
    """function in float32, oracle in float64, on the same numbers."""
    ours = [x.requires_grad_() for x in inputs]
    exact = [x.detach().double().requires_grad_() for x in inputs]
    results, expected = function(*ours), oracle(*exact)
    weights = [normal(*y.shape, seed=9) for y in expected]
    got = torch.autograd.grad(sum((y * w).sum() for y, w in zip(results, weights, strict=True)), ours)
    want = torch.autograd.grad(sum((y * w.double()).sum() for y, w in zip(expected, weights, strict=True)), exact)
    for a, b in zip([*results, *got], [*expected, *want], strict=True):
        same(a.double(), b, bound)


def same(a, b, bound):
    """A difference counts against the largest value, or against 1."""
    largest = float(b.detach().abs().max()) if b.numel() else 0.0
    torch.testing.assert_close(a, b, rtol=0, atol=bound * max(1.0, largest))


def selective_inputs(batch, length, channels, states):
    x, dt = normal(batch, length, channels), normal(batch, length, channels, seed=1).abs() * 0.3
    a = -normal(channels, states, seed=2).exp()
    b, c = normal(batch, length, states, seed=3), normal(batch, length, states, seed=4)
    return [x, dt, a, b, c, normal(batch, channels, states, seed=5)]


def lineages(batch: int, length: int) -> dict[str, Lineage]:
    generator = torch.Generator().manual_seed(length)
    documents = (torch.rand(batch, length, generator=generator) < 0.2).long().cumsum(1)
    gaps = torch.rand(batch, length, generator=generator) < 0.7
    return {
        "plain": Lineage.sequence(batch, length),
        "packed": Lineage.packed(documents),
        "padded": Lineage.padded(gaps),
        "both": Lineage.packed(torch.where(gaps, documents, -1)),
    }


@pytest.mark.parametrize("size", SIZES)
def test_selective_scan(instruction_set, size):
    inputs = selective_inputs(*size, states=16 if size[2] < 100 else 3)
    run = partial(selective.selective_scan, lineage=Lineage.sequence(*size[:2]))
    compare(run, selective.reference if size[1] < 1000 else run, inputs)  # in float64 the run is PyTorch's


@pytest.mark.parametrize("size", SIZES)
def test_gated_selective_scan(instruction_set, size):
    x, _, a, b, c, memory = selective_inputs(*size, states=16 if size[2] < 100 else 3)
    batch, length, channels = size
    rank, weight = normal(batch, length, 2, seed=6), normal(channels, 2, seed=7)
    inputs = [x, rank, weight, normal(channels, seed=8) - 2, a, b, c, normal(channels, seed=9), x.flip(0) + 0.1, memory]
    run = partial(selective.gated_selective_scan, lineage=Lineage.sequence(batch, length))
    compare(run, run, inputs)  # in float64 the run is a composition
    segments = (torch.arange(length) // 5).expand(batch, -1)
    run = partial(selective.gated_selective_scan, lineage=Lineage.packed(segments))
    compare(run, run, [z.detach().clone() for z in inputs])


@pytest.mark.parametrize("size", SIZES)
def test_diagonal_scan(instruction_set, size):
    a, b, h = normal(*size).tanh(), normal(*size, seed=1), normal(size[0], size[2], seed=2)
    compare(lambda *x: scan.diagonal_scan(*x, Lineage.sequence(*size[:2])), scan.reference, [a, b, h])


@pytest.mark.parametrize("width", [1, 2, 4, 16])
@pytest.mark.parametrize("size", SIZES[:-1])
def test_convolution(instruction_set, size, width):
    inputs = [normal(*size), normal(size[2], width, seed=1), normal(size[2], seed=2)]
    inputs.append(normal(size[0], width - 1, size[2], seed=3))
    lineage = Lineage.sequence(*size[:2])
    compare(lambda *x: conv.causal_conv(*x, lineage), conv.reference, inputs)

    def loop(*x):
        y, tail = conv.reference(*x)
        return torch.nn.functional.silu(y), tail

    compare(lambda *x: conv.causal_conv_silu(*x, lineage), loop, inputs)


@pytest.mark.parametrize("kind", ["packed", "padded", "both"])
@pytest.mark.parametrize("name", ["selective", "diagonal", "convolution"])
def test_chains_that_are_not_plain(name, kind):
    """Against PyTorch's form of the same primitive, which has a test of its own."""
    batch, length, channels = 3, 70, 18
    lineage = lineages(batch, length)[kind]
    selection = selective_inputs(batch, length, channels, 5)
    function, inputs = {
        "selective": (selective.selective_scan, selection),
        "diagonal": (scan.diagonal_scan, [normal(batch, length, channels).tanh(), selection[0], selection[0][:, 0]]),
        "convolution": (
            lambda x, w, tail, lineage: conv.causal_conv_silu(x, w, None, tail, lineage),
            [selection[0], normal(channels, 4), normal(batch, 3, channels)],
        ),
    }[name]
    valid = torch.ones(batch, length) if lineage.valid is None else lineage.valid.float()

    def run(*x):
        y, memory = function(*x, lineage)
        return y * valid[..., None], memory

    compare(run, run, [x.detach().clone() for x in inputs])


@pytest.mark.parametrize("size", [1, 3, 16, 17, 64, 65])
def test_decays_within_a_chunk(instruction_set, size):
    def loop(log):
        between = log.new_zeros(*log.shape, size)
        for t in range(size):
            for j in range(t + 1):
                between[..., t, j] = log[..., j + 1 : t + 1].sum(-1).exp()
        return (between,)

    compare(lambda log: (scans.decays(log),), loop, [-normal(2, 3, size).exp()])


def test_inputs_that_lie_anywhere():
    """Halves, transposes, a broken alignment and broadcasts are read as they are."""
    x, dt, a, b, c, memory = selective_inputs(2, 40, 6, 3)
    lineage = Lineage.sequence(2, 40)
    expected = selective.selective_scan(x, dt, a, b, c, memory, lineage)
    wide, early = torch.cat([dt, x], dim=-1), torch.cat([torch.zeros(1), b.flatten()])[1:].view_as(b)
    apart = [wide[..., 6:], wide[..., :6], a.mT.contiguous().mT, early, c.mT.contiguous().mT, memory]
    for got, want in zip(selective.selective_scan(*apart, lineage), expected, strict=True):
        assert torch.equal(got, want)
    one = b[:, :1].expand(-1, 40, -1)
    got = selective.selective_scan(x, dt, a, one, c, memory, lineage)[0]
    assert torch.equal(got, selective.selective_scan(x, dt, a, one.contiguous(), c, memory, lineage)[0])


def test_any_number_of_threads_gives_the_same_bits():
    inputs = [x.requires_grad_() for x in selective_inputs(2, 70, 200, 4)]
    filters, tail = normal(200, 4).requires_grad_(), normal(2, 3, 200)
    lineage = Lineage.sequence(2, 70)

    def everything():
        x, _ = conv.causal_conv_silu(inputs[0], filters, None, tail, lineage)
        h, _ = scan.diagonal_scan(inputs[1], x, x[:, 0], lineage)
        y, last = selective.selective_scan(h, *inputs[1:], lineage)
        return [y, last, *torch.autograd.grad(y.square().sum() + last.sum(), [*inputs, filters])]

    before, runs = torch.get_num_threads(), []
    for threads in range(1, 9):
        torch.set_num_threads(threads)
        runs.append(everything())
    torch.set_num_threads(before)
    for run in runs[1:]:
        assert all(torch.equal(a, b) for a, b in zip(run, runs[0], strict=True))


def test_rows_of_nothing():
    x, dt, a, b, c, memory = selective_inputs(1, 5, 3, 2)
    none = [z[:0] for z in (x, dt)]
    y, last = selective.selective_scan(*none, a, b[:0], c[:0], memory[:0], Lineage.sequence(0, 5))
    assert y.shape == (0, 5, 3) and last.shape == (0, 3, 2)


def test_exp_of_very_different_decays():
    """Decays from 1 down to exp(-200) = 0 in float32, never NaN, and so are their gradients."""
    x, b, c = torch.ones(1, 60, 1), torch.ones(1, 60, 1), torch.ones(1, 60, 1)
    dt = torch.cat([torch.zeros(10), torch.logspace(-8, 2.3, 50)])[None, :, None]
    inputs = [x, dt, torch.tensor([[-1.0]]), b, c, torch.ones(1, 1, 1)]
    compare(lambda *z: selective.selective_scan(*z, Lineage.sequence(1, 60)), selective.reference, inputs)


@pytest.mark.parametrize("name", catalog.names("mixers"))
def test_every_mixer_trains_the_same_with_and_without(name):
    """Float32, a packed and padded batch: outputs, state and gradients of C++ and of PyTorch."""
    mixer = make_mixer(name, 32).float()
    lineage = lineages(2, 40)["both" if "packed" in mixer.forms else "plain"]
    x = normal(2, 40, 32)
    valid = torch.ones(2, 40) if lineage.valid is None else lineage.valid.float()

    def run():
        y, state, _ = call(mixer, x, mixer.init_state(2), lineage, links_of_a_model(x))
        y = y * valid[..., None]
        floats = [leaf for leaf in leaves(state) if leaf.is_floating_point()]
        loss = (y * normal(*y.shape, seed=5)).sum() + sum(leaf.square().sum() for leaf in floats)
        return [y, *floats, *torch.autograd.grad(loss, list(mixer.parameters()), allow_unused=True)]

    fast = run()
    with native.left_out():
        slow = run()
    for a, b in zip(fast, slow, strict=True):
        if b is not None:
            same(a, b, 2e-5)


def test_leaving_it_out():
    assert native.runs(torch.zeros(1)) and not native.runs(torch.zeros(1, dtype=torch.float64))
    with native.left_out():
        assert not native.runs(torch.zeros(1))


def test_a_training_step_of_a_model():
    """The whole of it, through embedding, layers and loss, under bfloat16 autocast too."""
    model = runnel.build("(mamba, mingru, gated_deltanet)", vocab_size=11, d_model=32, seed=0)
    tokens = torch.randint(0, 11, (2, 50), generator=torch.Generator().manual_seed(0))
    for autocast, bound in ((False, 1e-5), (True, 0.05)):
        found = []
        for leave_out in (False, True):
            backend = native.left_out() if leave_out else nullcontext()
            with backend, torch.autocast("cpu", torch.bfloat16, enabled=autocast):
                logits, _ = model(tokens)
            found.append(
                [logits.float(), *torch.autograd.grad(logits.float().square().mean(), list(model.parameters()))]
            )
        for a, b in zip(*found, strict=True):
            same(a, b, bound)
