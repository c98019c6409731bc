import pytest
import torch
from torch.nn.functional import gelu

from runnel import Lineage

from .support import close, mixer, normal, run


def test_equals_a_dense_real_state_space():
    """In real coordinates: h' = A h + B u with A block-diagonal rotations, stepped by a matrix exponential."""
    made = mixer("s5", d_state=6)
    x = normal(2, 60, 8)
    pole = torch.complex(-made.log_decay.exp(), made.frequency) * made.log_dt.exp()  # time in steps
    blocks = [torch.stack([torch.stack([p.real, -p.imag]), torch.stack([p.imag, p.real])]) for p in pole]
    dense = torch.block_diag(*blocks)
    step = torch.linalg.matrix_exp(dense)
    gain = torch.linalg.solve(dense, step - torch.eye(6, dtype=torch.float64))
    b = gain @ (made.input.weight * made.log_dt.exp().repeat_interleave(2)[:, None])
    h, outputs = torch.zeros(2, 6, dtype=torch.float64), []
    for t in range(60):
        h = h @ step.T + x[:, t] @ b.T
        outputs.append(made.out(gelu(2 * made.read(h) + made.skip * x[:, t])))
    close(run(made, x), torch.stack(outputs, dim=1))


def test_restarts_inside_one_call_equal_a_loop_that_zeroes_its_state():
    """The check of the reinforcement-learning paper: random episode ends, no leak across them."""
    made = mixer("s5")
    x = normal(3, 200, 8)
    begins = torch.rand(3, 200, generator=torch.Generator().manual_seed(0)) < 0.1
    y, state = made(x, made.init_state(3), Lineage.packed(begins.long().cumsum(1)))
    a, gain = made.system()
    h, outputs = torch.zeros(3, a.shape[0], dtype=a.dtype), []
    for t in range(200):
        h = torch.where(begins[:, t, None], 0, h)
        h = a * h + gain * made._input(x[:, t])
        outputs.append(made.out(gelu(2 * made.read(torch.view_as_real(h).flatten(-2)) + made.skip * x[:, t])))
    close(y, torch.stack(outputs, dim=1))
    close(torch.view_as_complex(state.h), h)


def test_bad_sizes_are_refused():
    with pytest.raises(ValueError, match=r"multiples of 2 \* copies; got d_state 6, copies 2"):
        mixer("s5", d_state=6, copies=2)
    with pytest.raises(ValueError, match="0 < dt_min <= dt_max"):
        mixer("s5", dt_min=1.0)
