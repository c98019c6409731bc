"""Subjects of the conformance suite: every mixer that the folder holds, its variants, and five hybrids.

Nothing here names a mixer: a new page is held to all of it by being there.
"""

import pytest
import torch

import runnel
from runnel import catalog
from runnel.links import Linked
from runnel.mixer import Mixer

# The balance loss is about a whole batch: its gradient (nothing else) differs between a packed row and its documents.
HYBRIDS = (
    "(mamba2*2, attention)",
    "(rwkv7, slstm+moe(balance=0.0), mingru+none, attention(window=3))",
    "(gated_deltanet(beta_max=2.0), mamba, gla+moe(experts=4, balance=0.0), linear_attention)",
    "(mamba2 & attention(window=3), gla & deltanet & short_conv+none)",
    "(zamba2 > mamba2+none, rwkv7 & short_conv, yoco+none, rwkv7+none, yoco > gla)",
)
VOCAB = 11


def pages() -> list[str]:
    """Every mixer in its default form and in the variants that its page declares, as patterns; the mixer comes last."""
    found = []
    for name in catalog.names("mixers"):
        mixer = catalog.class_in(catalog.page("mixers", name), Mixer)
        for options in ({}, *mixer.variants):
            text = ", ".join(f"{key}={value!r}" for key, value in options.items())
            places = mixer.places if issubclass(mixer, Linked) else ("{}",)
            found += [place.replace("{}", f"{name}({text})" if text else name) for place in places]
    return found


def make(pattern: str, d_model: int = 8, seed: int = 0) -> runnel.Model:
    """A float64 model whose parameters are all away from their tidy initial values: no term can hide behind a zero."""
    model = runnel.build(pattern, vocab_size=VOCAB, d_model=d_model, seed=seed).double()
    generator = torch.Generator().manual_seed(seed + 1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator, dtype=torch.float64), alpha=0.3)
    return model


def tokens(batch: int, length: int, seed: int = 0) -> torch.Tensor:
    return torch.randint(0, VOCAB, (batch, length), generator=torch.Generator().manual_seed(seed))


def gradients(model: runnel.Model, loss: torch.Tensor) -> list[torch.Tensor]:
    found = torch.autograd.grad(loss, list(model.parameters()), allow_unused=True)
    return [torch.zeros(()) if g is None else g for g in found]


def close(actual: torch.Tensor, expected: torch.Tensor, bound: float = 1e-9) -> None:
    """Equal up to `bound`, absolute for small values and relative for large ones."""
    torch.testing.assert_close(actual, expected, rtol=bound, atol=bound)


def same_state(actual: runnel.State, expected: runnel.State, bound: float = 1e-9) -> None:
    from runnel.state import leaves

    assert actual.lengths.tolist() == expected.lengths.tolist()
    for a, b in zip(leaves(actual.layers), leaves(expected.layers), strict=True):
        if a.is_floating_point():
            close(a, b, bound)
        else:
            assert torch.equal(a, b)


SUBJECTS = (*pages(), *HYBRIDS)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items):
    """Two thousand steps of a variant differ from those of its page by a term that all the other checks hold."""
    for item in items:
        subject = getattr(item, "callspec", None) and item.callspec.params.get("model")
        if item.name.startswith("test_twenty_thousand_steps") and subject not in (*catalog.names("mixers"), *HYBRIDS):
            item.add_marker(pytest.mark.thorough)


@pytest.fixture(scope="session", params=SUBJECTS)
def model(request) -> runnel.Model:
    return make(request.param)
