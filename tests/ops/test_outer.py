"""Outer-product scan: decays per head and per channel, mild and brutal, in chunks, steps and trees, with gradients."""

import pytest
import torch

from runnel.lineage import Lineage
from runnel.ops.outer import mean_scan, outer_scan, outer_scan_across, outer_scan_before, reference, step

from .support import check_tree, close, normal, same_with_gradients

DECAYS = {"none": 0.0, "mild": 0.05, "strong": 3.0, "brutal": 1e4}


def inputs(length: int, channels: bool, strength: float, heads: int = 2):
    q, k, v = normal(2, length, heads, 3), normal(2, length, heads, 3, seed=1), normal(2, length, 2, 4, seed=2)
    raw = normal(2, length, 2, 3, seed=3) if channels else normal(2, length, 2, seed=3)
    log_decay = (-strength * raw.detach() ** 2).requires_grad_()
    return [q, k, v, log_decay, normal(2, 2, 3, 4, seed=4)]


@pytest.mark.parametrize("channels", [False, True])
@pytest.mark.parametrize("strength", DECAYS.values(), ids=DECAYS)
@pytest.mark.parametrize("length", [1, 2, 15, 16, 17, 64, 65, 150])
def test_equals_the_loop(channels, strength, length):
    args = inputs(length, channels, strength)
    same_with_gradients(outer_scan(*args, Lineage.sequence(2, length)), reference(*args), args)


def test_keys_shared_by_all_heads():
    args = inputs(70, False, 0.1, heads=1)
    same_with_gradients(outer_scan(*args, Lineage.sequence(2, 70)), reference(*args), args)


@pytest.mark.parametrize("channels", [False, True])
@pytest.mark.parametrize("strength", DECAYS.values(), ids=DECAYS)
def test_tree(channels, strength):
    *tokens, memory = inputs(9, channels, strength)
    check_tree(outer_scan, reference, tokens, memory)


@pytest.mark.parametrize("channels", [False, True])
def test_float32_keeps_its_precision_under_decay(channels):
    """Long cumulative sums of decays would lose digits; segment sums do not."""
    args = inputs(150, channels, 5.0)
    single = [x.detach().float() for x in args]
    y, last = outer_scan(*single, Lineage.sequence(2, 150))
    expected, memory = reference(*args)
    close(y.double(), expected.detach(), bound=1e-5)
    close(last.double(), memory.detach(), bound=1e-5)
    assert y.dtype == torch.float32


def test_half_precision_inputs_are_accumulated_in_float32():
    args = [x.detach().bfloat16() for x in inputs(40, False, 0.1)[:4]]
    y, last = outer_scan(*args, torch.zeros(2, 2, 3, 4), Lineage.sequence(2, 40))
    assert y.dtype == torch.bfloat16 and last.dtype == torch.float32
    _, memory = reference(*[x.double() for x in args], torch.zeros(2, 2, 3, 4, dtype=torch.float64))
    close(last.double(), memory, bound=1e-5)


def reference_before(q, k, v, log_decay, memory):
    """The literal loop that reads first: y_t = S_p^T q_t."""
    outputs = []
    for t in range(q.shape[1]):
        outputs.append((q[:, t, :, None, :] @ memory)[..., 0, :])
        decay = log_decay[:, t, :, None] if log_decay.dim() == 3 else log_decay[:, t]
        memory = step(q[:, t], k[:, t], v[:, t], decay, memory)[1]
    return torch.stack(outputs, dim=1), memory


@pytest.mark.parametrize("channels", [False, True])
@pytest.mark.parametrize("strength", DECAYS.values(), ids=DECAYS)
@pytest.mark.parametrize("length", [1, 2, 17, 65, 150])
def test_reading_before_writing(channels, strength, length):
    args = inputs(length, channels, strength)
    same_with_gradients(outer_scan_before(*args, Lineage.sequence(2, length)), reference_before(*args), args)


@pytest.mark.parametrize("channels", [False, True])
def test_tree_that_reads_before_writing(channels):
    *tokens, memory = inputs(9, channels, 0.05)
    check_tree(outer_scan_before, reference_before, tokens, memory)


def reference_across(q, k, v, log_decay, memory):
    """The literal loop that reads from the side of the values: y_t = S_t q_t."""
    outputs = []
    for t in range(q.shape[1]):
        decay = log_decay[:, t, :, None] if log_decay.dim() == 3 else log_decay[:, t]
        memory = decay.exp()[..., None] * memory + k[:, t, :, :, None] * v[:, t, :, None, :]
        outputs.append((memory @ q[:, t, :, :, None])[..., 0])
    return torch.stack(outputs, dim=1), memory


def inputs_across(length, channels, strength):
    _, k, v, log_decay, memory = inputs(length, channels, strength)
    return [normal(2, length, 2, 4, seed=9), k, v, log_decay, memory]


@pytest.mark.parametrize("channels", [False, True])
@pytest.mark.parametrize("strength", DECAYS.values(), ids=DECAYS)
@pytest.mark.parametrize("length", [1, 2, 17, 65, 150])
def test_reading_from_the_side_of_the_values(channels, strength, length):
    args = inputs_across(length, channels, strength)
    same_with_gradients(outer_scan_across(*args, Lineage.sequence(2, length)), reference_across(*args), args)


@pytest.mark.parametrize("channels", [False, True])
@pytest.mark.parametrize("strength", DECAYS.values(), ids=DECAYS)
def test_tree_read_from_the_side_of_the_values(channels, strength):
    *tokens, memory = inputs_across(9, channels, strength)
    check_tree(outer_scan_across, reference_across, tokens, memory)


def test_the_mean_of_the_past_under_decaying_weights():
    q, k, v, log_decay, _ = inputs(70, True, 0.3)
    q, k = q.exp(), k.exp()
    zero = torch.zeros(2, 2, 3, 5, dtype=torch.float64)
    kept = (log_decay.cumsum(1)[:, :, None] - log_decay.cumsum(1)[:, None]).exp()  # (B, T, T, H, K)
    scores = torch.einsum("bthk,btjhk,bjhk->bhtj", q, kept, k).tril()
    expected = (scores / scores.sum(-1, keepdim=True)) @ v.transpose(1, 2)
    close(mean_scan(q, k, v, zero, Lineage.sequence(2, 70), log_decay)[0], expected.transpose(1, 2))
