import math

import pytest
import torch
from torch.nn.functional import gelu

from runnel.ops.lti import initial_poles

from .support import close, mixer, normal, run


def test_equals_the_convolution_that_the_papers_train_by():
    """The Vandermonde kernel, applied by Fourier transform, at length 500."""
    made = mixer("s4d", d_state=6)
    x = normal(2, 500, 8)
    log_a, c = made.system()
    kernel = (c * (torch.arange(500)[:, None, None] * log_a).exp()).real.sum(-1)
    spectrum = torch.fft.rfft(kernel, 1000, dim=0) * torch.fft.rfft(x, 1000, dim=1)
    y = torch.fft.irfft(spectrum, 1000, dim=1)[:, :500] + made.skip * x
    close(run(made, x), made.out(gelu(y)))


def test_zero_order_hold_is_the_exact_response_to_a_held_input():
    """A step of size dt equals a thousand small ones of Euler's rule, to first order in their size."""
    made = mixer("s4d", d_model=1, d_state=2)
    pole = torch.complex(-made.log_decay.exp(), made.frequency)[0, 0]
    dt, small = made.log_dt.exp()[0], 1_000_000
    h = (1 + pole * dt / small) ** small  # of h' = pole h from 1, without input
    log_a, c = made.system()
    close(log_a.exp()[0, 0], h, bound=1e-5)
    close(c[0, 0] / 2 / torch.view_as_complex(made.c)[0, 0], (h - 1) / pole, bound=1e-5)


def test_the_poles_begin_where_the_papers_put_them():
    """LegS: eigenvalues of the HiPPO matrix after its rank-one correction. Inv approximates them, largest first."""
    size = 16
    root = (2 * torch.arange(size, dtype=torch.float64) + 1).sqrt()
    hippo = -torch.outer(root, root).tril(-1) - torch.diag(torch.arange(1.0, size + 1, dtype=torch.float64))
    values = torch.linalg.eigvals(hippo + torch.outer(root, root) / 2)
    close(values.real, torch.full((size,), -0.5, dtype=torch.float64))
    upper = values.imag[values.imag > 0].sort().values
    close(initial_poles("legs", 8).imag.double(), upper, bound=1e-5)
    legs, inv = initial_poles("legs", 128).imag, initial_poles("inv", 128).imag
    close(inv.max(), legs.max(), bound=0.02)
    close(initial_poles("lin", 3), -0.5 + 1j * math.pi * torch.arange(3), bound=1e-6)


def test_bad_options_are_refused():
    with pytest.raises(ValueError, match="even d_state >= 2; got 3"):
        mixer("s4d", d_state=3)
    with pytest.raises(ValueError, match="'legs', 'inv' or 'lin'; got 'hippo'"):
        mixer("s4d", poles="hippo")
    with pytest.raises(ValueError, match="0 < dt_min <= dt_max"):
        mixer("s4d", dt_min=1.0)
