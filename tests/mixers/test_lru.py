import math

import pytest
import torch

from runnel import Lineage

from .support import close, mixer, normal, run


def test_equals_a_convolution_taken_by_fourier_transform():
    """Without resets the layer is a convolution with Re(C lambda^k gamma B), here at length 500."""
    made = mixer("lru", d_state=6)
    x = normal(2, 500, 8)
    powers = made.eigenvalues() ** torch.arange(500, dtype=torch.float64)[:, None]  # (T, N)
    b = torch.view_as_complex(made.input.weight.unflatten(0, (6, 2)).movedim(1, -1).contiguous())  # (N, D)
    kernel = torch.einsum("on,tn,nd->tod", _c(made), powers, made.log_gamma.exp()[:, None] * b).real
    spectrum = torch.einsum("fod,bfd->bfo", torch.fft.rfft(kernel, 1000, dim=0), torch.fft.rfft(x, 1000, dim=1))
    close(run(made, x), torch.fft.irfft(spectrum, 1000, dim=1)[:, :500] + made.skip * x)


def _c(made):
    real, imag = made.out.weight.unflatten(1, (-1, 2)).unbind(-1)
    return torch.complex(real, -imag)


def test_eigenvalues_begin_on_the_ring_and_stay_inside_the_circle():
    made = mixer("lru", d_model=512, r_min=0.9, r_max=0.999, max_phase=math.pi / 10)
    radius, phase = made.eigenvalues().abs(), made.eigenvalues().angle()
    assert radius.min() >= 0.9 and radius.max() <= 0.999 and phase.min() >= 0 and phase.max() <= math.pi / 10
    close(radius.square().mean(), torch.tensor((0.81 + 0.998001) / 2, dtype=torch.float64), bound=0.01)
    with torch.no_grad():
        made.nu.add_(5 * normal(512)), made.theta.add_(5 * normal(512))
    assert made.eigenvalues().abs().max() < 1


def test_the_normalisation_keeps_the_scale_of_the_state():
    """Section 3.4: under white noise E|h|^2 tends to E|B x|^2, however near the circle the eigenvalues are."""
    made = mixer("lru", d_model=16, r_min=0.97, r_max=0.99)
    _, state = made(normal(400, 600, 16), made.init_state(400), Lineage.sequence(400, 600))
    power = state.h.square().sum(-1).mean(0)  # of every eigenvalue, over rows
    close(power.mean(), made.input.weight.square().sum() / 16, bound=0.05)


def test_bad_rings_are_refused():
    with pytest.raises(ValueError, match=r"r_min < r_max < 1; got r_min 0\.9, r_max 0\.8"):
        mixer("lru", r_min=0.9, r_max=0.8)
    with pytest.raises(ValueError, match="0 < max_phase <= 2 pi; got 0"):
        mixer("lru", max_phase=0)
