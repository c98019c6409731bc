import pytest
import torch
from torch.nn.functional import silu

from .support import close, mixer, normal, run


def test_the_state_space_has_the_kernel_to_rounding():
    """The check of the paper: 512 entries from 257 frequencies, to 1e-5 in float64 and far below."""
    made = mixer("toeplitz", length=512, decay=0.999)
    log_a, c = made.system()
    powers = torch.arange(512, dtype=torch.float64)[:, None, None] * log_a
    kernel = (c * powers.exp()).real.sum(-1)
    decays = 0.999 ** torch.arange(512, dtype=torch.float64)[:, None]
    assert (kernel - decays * made.coefficients()).abs().max() < 1e-12


def test_equals_the_product_with_a_toeplitz_matrix():
    made = mixer("toeplitz", length=64)
    x = normal(2, 64, 8)
    u, v = silu(made.input(x)).chunk(2, dim=-1)
    at = torch.arange(64)
    age = at[:, None] - at
    matrix = torch.where(
        (age >= 0)[..., None], made.decay ** age.clamp(min=0).double()[..., None] * made.coefficients()[age], 0
    )
    close(run(made, x), made.out(u * torch.einsum("tjd,bjd->btd", matrix, v)))


def test_bad_options_are_refused():
    with pytest.raises(ValueError, match="even length >= 2; got 5"):
        mixer("toeplitz", length=5)
    with pytest.raises(ValueError, match="0 < decay < 1, so that a stream's past fades; got 1"):
        mixer("toeplitz", decay=1)
    with pytest.raises(ValueError, match="hidden >= 1; got 0"):
        mixer("toeplitz", hidden=0)
