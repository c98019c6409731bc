"""Time-invariant diagonal systems, real and complex: against the loop and against Fourier's convolution."""

import pytest
import torch

from runnel.lineage import Lineage
from runnel.ops.lti import lti_scan, reference

from .support import check_tree, close, normal, same_with_gradients


def system(kind: str):
    """log_a and c (3, 4), and a memory of two rows."""
    log_a, c, h = -normal(3, 4).exp(), normal(3, 4, seed=1), normal(2, 3, 4, seed=2)
    if kind == "real":
        return log_a, c, h
    return torch.complex(log_a, normal(3, 4, seed=3)), torch.complex(c, log_a), torch.stack([h, 2 * h], dim=-1)


@pytest.mark.parametrize("kind", ["real", "complex"])
@pytest.mark.parametrize("length", [1, 2, 31, 32, 33, 100])
def test_equals_the_loop(kind, length):
    leaves = [x.detach().requires_grad_() for x in (normal(2, length, 3), *system(kind))]
    same_with_gradients(lti_scan(*leaves, Lineage.sequence(2, length)), reference(*leaves), leaves)


@pytest.mark.parametrize("kind", ["real", "complex"])
def test_trees(kind):
    log_a, c, h = [x.detach() for x in system(kind)]
    u = normal(2, 9, 3)
    check_tree(
        lambda u, memory, lineage: lti_scan(u, log_a, c, memory, lineage),
        lambda u, memory: reference(u, log_a, c, memory),
        [u],
        h.requires_grad_(),
    )


@pytest.mark.parametrize("kind", ["real", "complex"])
def test_equals_a_convolution_taken_by_fourier_transform(kind):
    log_a, c, h = [x.detach() for x in system(kind)]
    u = normal(2, 300, 3, grad=False)
    kernel = (c * (torch.arange(300)[:, None, None] * log_a).exp()).real.sum(-1)  # (T, D)
    spectrum = torch.fft.rfft(kernel, 600, dim=0) * torch.fft.rfft(u, 600, dim=1)
    y, _ = lti_scan(u, log_a, c, torch.zeros_like(h), Lineage.sequence(2, 300))
    close(y, torch.fft.irfft(spectrum, 600, dim=1)[:, :300])


def test_padding_is_no_step_and_documents_are_apart():
    log_a, c, h = [x.detach() for x in system("complex")]
    u = normal(2, 80, 3, grad=False)
    valid = torch.rand(2, 80, generator=torch.Generator().manual_seed(0)) < 0.5
    y, after = lti_scan(u, log_a, c, h, Lineage.padded(valid))
    segments = (torch.arange(80) >= 37).long().expand(2, -1)
    packed, _ = lti_scan(u, log_a, c, h, Lineage.packed(segments))
    for row in range(2):
        expected, last = reference(u[row : row + 1, valid[row]], log_a, c, h[row : row + 1])
        close(y[row, valid[row]], expected[0])
        close(after[row], last[0])
    close(packed[:, 37:], reference(u[:, 37:], log_a, c, torch.zeros_like(h))[0])


def test_a_decay_that_underflows_leaves_no_nan():
    u = normal(1, 70, 2)
    log_a = torch.full((2, 3), -1e4, dtype=torch.float64, requires_grad=True)
    y, last = lti_scan(u, log_a, torch.ones(2, 3).double(), torch.zeros(1, 2, 3).double(), Lineage.sequence(1, 70))
    grads = torch.autograd.grad(y.sum() + last.sum(), [u, log_a])
    assert all(g.isfinite().all() for g in grads)
