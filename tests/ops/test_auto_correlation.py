"""Auto-correlation by FFT is the direct sum, and finds a period."""

import pytest
import torch

from runnel.ops.auto_correlation import aggregated, delays, reference


@pytest.mark.parametrize("length, keep", [(9, 3), (8, 8), (1, 1)])
def test_correlation_by_fft_equals_direct_sums(length, keep):
    q, k, v = torch.randn(3, 2, length, 1, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    found = aggregated(q, k, v, keep)
    for row in range(2):
        expected = reference(*[x[row, :, 0].tolist() for x in (q, k, v)], keep)
        assert (found[row, :, 0] - torch.tensor(expected, dtype=torch.float64)).abs().max() < 1e-9


def test_the_chosen_delays_are_the_planted_period():
    wave = (2 * torch.pi * torch.arange(48.0, dtype=torch.float64) / 12).sin()[None, :, None]
    noise = torch.randn(1, 48, 1, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    shifted = aggregated(wave + 0.1 * noise, wave, torch.arange(48.0, dtype=torch.float64)[None, :, None], 1)
    assert int(shifted[0, 0, 0]) % 12 == 0


def test_how_many_delays_are_kept():
    assert delays(96, 3) == 13 and delays(1, 3) == 1 and delays(3, 9) == 3
