import math

import pytest
import torch

from runnel import Lineage

from .support import close, mixer


def remember(signal: torch.Tensor, **options):
    """A memory of one channel that has read `signal` as it is."""
    made = mixer("hippo", d_model=1, **options)
    with torch.no_grad():
        made.signals.weight.fill_(1.0)
        _, state = made(signal[None, :, None], made.init_state(1), Lineage.sequence(1, len(signal)))
    return made, state.memory


def wave(age: torch.Tensor) -> torch.Tensor:
    """Band-limited, in units of the window: the newest is at age 0."""
    return (2 * math.pi * 1.3 * age).sin() + 0.5 * (2 * math.pi * 0.4 * age + 1).cos()


@pytest.mark.parametrize(
    ("measure", "tokens", "bounds"),
    [("legs", 600, (0.5, 0.02)), ("legt", 1800, (0.2, 0.01)), ("fout", 1800, (0.4, 0.15))],
)
def test_the_signal_comes_back_and_better_with_higher_order(measure, tokens, bounds):
    """600 tokens to a window; read between 5 and 95 % of it."""
    window = 600
    signal = wave((tokens - 0.5 - torch.arange(tokens, dtype=torch.float64)) / window)
    ages = torch.linspace(0.05, 0.95, 50, dtype=torch.float64)
    for order, bound in zip((7, 21), bounds, strict=True):
        made, memory = remember(signal, measure=measure, order=order, window=float(window))
        assert (made.reconstruct(memory, ages)[0, 0] - wave(ages)).abs().max() < bound


def test_a_fading_memory_holds_the_near_past():
    signal = wave((3999.5 - torch.arange(4000, dtype=torch.float64)) / 100 / 8)
    ages = torch.linspace(0.2, 2, 50, dtype=torch.float64)
    errors = []
    for order in (8, 48):
        made, memory = remember(signal, measure="lagt", order=order, window=100.0)
        errors.append((made.reconstruct(memory, ages)[0, 0] - wave(ages / 8)).abs().max())
    assert errors[1] < 0.5 * errors[0]


def test_legs_does_not_mind_how_fast_time_goes():
    """The same function in 300 and in 1200 tokens leaves the same coefficients, up to discretisation."""
    states = []
    for tokens in (300, 1200):
        ages = (tokens - 0.5 - torch.arange(tokens, dtype=torch.float64)) / tokens
        states.append(remember(wave(ages), measure="legs", order=12)[1])
    close(states[0], states[1], bound=0.02)


def test_bad_options_are_refused():
    with pytest.raises(ValueError, match="legs, legt, fout, lagt; got 'legz'"):
        mixer("hippo", measure="legz")
    with pytest.raises(ValueError, match="order >= 2; got 1"):
        mixer("hippo", order=1)
    with pytest.raises(ValueError, match="window >= 1; got 0"):
        mixer("hippo", window=0)
