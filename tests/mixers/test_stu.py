import pytest
import torch

from runnel.mixers.stu import spectral_filters

from .support import close, mixer, normal, run


def test_filters_are_eigenvectors_of_the_hankel_matrix():
    i = torch.arange(1, 65, dtype=torch.float64)
    hankel = 2 / ((i[:, None] + i) ** 3 - (i[:, None] + i))
    scaled = spectral_filters(64, 5)
    sizes = scaled.norm(dim=0)
    phi, sigma = scaled / sizes, sizes**4
    close(hankel @ phi, phi * sigma)
    close(phi.T @ phi, torch.eye(5, dtype=torch.float64))
    assert sigma[0] > sigma[1] > sigma[4] > 0


def test_few_filters_hold_every_memory_however_long():
    """a^i (1 - a), for a up to 0.999: the best fit by 12 filters of 256, against 12 cosines of the same length."""
    steps = torch.arange(256, dtype=torch.float64)
    rates = torch.tensor([0.0, 0.5, 0.9, 0.99, 0.999], dtype=torch.float64)
    memories = rates ** steps[:, None] * (1 - rates)
    cosines = (torch.pi * (steps[:, None] + 0.5) * torch.arange(12) / 256).cos()
    errors = []
    for basis in (spectral_filters(256, 12), cosines):
        fit = basis @ torch.linalg.lstsq(basis, memories).solution
        errors.append((fit - memories).norm(dim=0).max())
    assert errors[0] < 1e-3 and errors[1] > 100 * errors[0]


def test_equals_a_long_convolution_by_fourier_transform():
    made = mixer("stu", length=32, filters=4)
    x = normal(2, 100, 8)
    kernel = made.kernel()
    spectrum = torch.fft.rfft(kernel, 256, dim=0) * torch.fft.rfft(made.input(x), 256, dim=1)
    close(run(made, x), made.out(torch.fft.irfft(spectrum, 256, dim=1)[:, :100]))


def test_bad_options_are_refused():
    with pytest.raises(ValueError, match="1 <= filters <= length; got filters 9, length 8"):
        mixer("stu", length=8, filters=9)
    with pytest.raises(ValueError, match="length >= 2; got 1"):
        mixer("stu", length=1, filters=1)
