import pytest
import torch
from torch.nn.functional import silu

from runnel import Lineage
from runnel.ops.selective import signed_selective_scan

from .support import close, mixer, normal, run


def test_constant_steps_make_it_a_convolution():
    """Section 2: when dt, B and C do not depend on the input, the layer is a convolution with C exp(dt A)^k dt B."""
    made = mixer("mamba", d_model=2, d_state=3, rank=1)
    with torch.no_grad():
        made.dt.weight.zero_()
        made.dt_bias.fill_(0.3)
        made.select.weight.zero_()
    dt = torch.nn.functional.softplus(made.dt_bias)
    b, c = normal(3), normal(3, seed=1)
    made._select = lambda x: (x[..., :1], b.expand(*x.shape[:2], 3), c.expand(*x.shape[:2], 3))
    u = normal(1, 20, 2)
    x, z = made.input(u).chunk(2, dim=-1)
    padded = torch.nn.functional.pad(x, (0, 0, 3, 0))
    x = silu(sum(padded[:, w : w + 20] * made.conv_weight[:, w] for w in range(4)) + made.conv_bias)
    a = (dt[:, None] * -made.log_a.exp()).exp()
    kernel = torch.stack([(c * a**k * dt[:, None] * b).sum(-1) for k in range(20)])
    y = torch.stack([(kernel[: t + 1].flip(0) * x[0, : t + 1]).sum(0) for t in range(20)])[None]
    close(run(made, u), made.out((y + made.skip * x) * silu(z)))


def test_initial_values_are_the_papers():
    made = mixer("mamba", d_model=64)
    close(made.log_a[5].exp(), torch.arange(1, 17, dtype=torch.float64), bound=1e-5)
    steps = torch.nn.functional.softplus(made.dt_bias)
    assert steps.min() >= 1e-3 * 0.99 and steps.max() <= 1e-1 * 1.01
    assert made.init_state(3).memory.shape == (3, 128, 16) and made.init_state(3).tail.shape == (3, 3, 128)


def test_signed_eigenvalues_let_an_impulse_come_back_sign_by_sign():
    """Large steps make exp(dt A) nearly zero, and 2 exp(dt A) - 1 nearly minus one."""
    one, at = torch.ones(1, 6, 1).double(), (torch.arange(6) == 0).double()[None, :, None]
    open_gate, steps = torch.full((1, 6, 1), 50.0).double(), torch.full((1,), 40.0).double()
    given = (at, one, torch.zeros(1, 1).double(), steps, -one[0, :1], one, one, torch.zeros(1).double(), open_gate)
    y, _ = signed_selective_scan(*given, torch.zeros(1, 1, 1).double(), Lineage.sequence(1, 6))
    close(y[0, :, 0] / (40 * 50), torch.tensor([1.0, -1, 1, -1, 1, -1]).double())


def test_polarized_states_keep_all_or_only_the_last_token():
    made = mixer("mamba", d_model=4, conv=1, polarize=True)
    x = normal(1, 300, 4)
    _, last = made(x, made.init_state(1), Lineage.sequence(1, 300))
    _, without_first = made(x[:, 1:], made.init_state(1), Lineage.sequence(1, 299))
    _, alone = made(x[:, -1:], made.init_state(1), Lineage.sequence(1, 1))
    first = made(x[:, :1], made.init_state(1), Lineage.sequence(1, 1))[1].memory
    close(last.memory[..., 0] - without_first.memory[..., 0], first[..., 0])
    close(last.memory[..., -1], alone.memory[..., -1])


def test_bad_options_are_refused():
    with pytest.raises(ValueError, match="must be positive or signed; got 'neg'"):
        mixer("mamba", eigen_range="neg")
    with pytest.raises(ValueError, match="polarize of mamba needs d_state >= 2"):
        mixer("mamba", polarize=True, d_state=1)
