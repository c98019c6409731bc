import pytest
import torch

from runnel import Lineage

from .support import close, mixer, normal


def test_the_average_equals_a_convolution_taken_by_fourier_transform():
    """Section 3.1: the damped average is a convolution with sum_n eta alpha beta (1 - alpha delta)^k."""
    made = mixer("mega", ema=4)
    x = normal(2, 300, 8)
    averages = []
    project = made._project
    made._project = lambda x, e: averages.append(e) or project(x, e)
    made(x, made.init_state(2), Lineage.sequence(2, 300))
    alpha, delta = made.alpha.sigmoid(), made.delta.sigmoid()
    kernel = (made.eta * alpha * made.beta * (1 - alpha * delta) ** torch.arange(300)[:, None, None]).sum(-1)
    spectrum = torch.fft.rfft(kernel, 600, dim=0) * torch.fft.rfft(x, 600, dim=1)
    close(averages[0], torch.fft.irfft(spectrum, 600, dim=1)[:, :300])


def test_with_a_window_the_memory_is_constant_in_length():
    made = mixer("mega", window=5)
    sizes = set()
    for length in (10, 50, 200):
        with torch.no_grad():
            _, state = made(normal(1, length, 8), made.init_state(1), Lineage.sequence(1, length))
        sizes.add((state.ema.numel(), state.memory.k.numel(), state.memory.v.numel()))
    assert len(sizes) == 1


def test_without_an_average_order_within_the_window_leaves_no_trace():
    """Attention alone is blind to the order of earlier tokens; the average is what sees it."""
    made = mixer("mega")
    x = normal(1, 6, 8)
    swapped = x[:, [1, 0, 2, 3, 4, 5]]

    def last(x):
        return made(x, made.init_state(1), Lineage.sequence(1, 6))[0][:, -1]

    assert not torch.allclose(last(x), last(swapped), atol=1e-3)
    with torch.no_grad():
        made.eta.zero_()
    close(last(x), last(swapped))


def test_bad_sizes_are_refused():
    with pytest.raises(ValueError, match=r">= 1; got .*ema=0"):
        mixer("mega", ema=0)
