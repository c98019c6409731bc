import pytest
import torch
from torch.nn.functional import gelu

from .support import close, mixer, normal, run


def test_equals_the_fourier_convolution_of_the_papers_pseudocode():
    """At length 700: kernel by exp(L t), product in the frequency domain, then the gated unit."""
    made = mixer("gss", d_state=6)
    x = normal(2, 700, 8)
    poles = torch.complex(-made.log_decay.exp(), made.log_frequency.exp())
    c = torch.view_as_complex(made.c) * (poles.exp() - 1) / poles
    kernel = torch.einsum("hn,tn->th", c, torch.outer(torch.arange(700), poles).exp()).real
    u = made.norm(gelu(made.u(x)))
    spectrum = torch.fft.rfft(kernel, 1400, dim=0) * torch.fft.rfft(u, 1400, dim=1)
    y = torch.fft.irfft(spectrum, 1400, dim=1)[:, :700] + made.skip * u
    close(run(made, x), made.out(made.widen(y) * gelu(made.v(x))))


def test_the_state_space_is_four_times_narrower():
    made = mixer("gss", d_model=64)
    assert made.init_state(2).memory.shape == (2, 16, 64, 2)


def test_bad_sizes_are_refused():
    with pytest.raises(ValueError, match=r">= 1; got .*d_state=0"):
        mixer("gss", d_state=0)
