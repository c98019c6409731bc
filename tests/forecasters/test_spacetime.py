import pytest
import torch
from forecasters.support import a_window, autoregression, mean_error, parts, seasonal

from runnel.forecasters.spacetime import Companion, Config, krylov, reference
from runnel.mixers import s4d
from runnel.windows import FitConfig, WindowShape, build

TRUE = (0.5, -0.3, 0.0, 0.4)


def random_system(heads=2, d_state=5):
    torch.manual_seed(0)
    system = Companion(heads, d_state, closed=True).double()
    for p in system.parameters():
        torch.nn.init.normal_(p, std=0.5)
    return system


@pytest.mark.parametrize("length", [1, 2, 7, 16])
def test_powers_by_doubling_are_powers(length):
    torch.manual_seed(0)
    matrix, start = torch.randn(3, 4, 4, dtype=torch.float64) / 2, torch.randn(3, 4, dtype=torch.float64)
    expected = [start]
    for _ in range(length - 1):
        expected.append((matrix @ expected[-1][..., None])[..., 0])
    assert (krylov(matrix, start, length) - torch.stack(expected, -1)).abs().max() < 1e-9


@pytest.mark.parametrize("length, horizon", [(1, 1), (9, 7), (16, 12)])
def test_convolution_and_rollout_equal_the_steps(length, horizon):
    system, u = random_system(), torch.randn(1, length, 2, dtype=torch.float64)
    open_loop, closed = reference(system, u[0, :, 0].tolist(), horizon)
    assert (system(u)[0, :, 0] - torch.tensor(open_loop, dtype=torch.float64)).abs().max() < 1e-9
    assert (system.rollout(u, horizon)[0, :, 0] - torch.tensor(closed, dtype=torch.float64)).abs().max() < 1e-9


def test_the_matrix_is_a_companion_of_bounded_column():
    matrix = random_system().matrix()
    assert torch.equal(matrix[:, 1:, :-1], torch.eye(4, dtype=torch.float64).expand(2, -1, -1))
    assert (matrix[:, 0, :-1] == 0).all() and (matrix[..., -1].abs().sum(-1) <= 1 + 1e-12).all()


def test_recovers_the_coefficients_of_an_autoregression():
    table, shape = autoregression(TRUE, rows=3000), WindowShape(16, 3)
    train, valid = parts(table, shape)
    model = build(Config(d_model=None, d_state=4, layers=0, norm="none"), shape)
    model.fit(train, valid, FitConfig(steps=500, lr=2e-2, valid_every=100, weight_decay=0.0))
    found = model.decoder.kernel(6)[0].detach()  # what an input weighs in the forecast of the next step
    assert (found - torch.tensor([*TRUE, 0.0, 0.0])).abs().max() < 0.1


def test_a_companion_is_an_autoregression_exactly_and_diagonal_states_are_not():
    """The one-step predictor of AR(4) ends after four lags: a companion of four states does, diagonal ones decay."""
    phi = torch.tensor(TRUE, dtype=torch.float64)
    system = Companion(1, 4).double()
    with torch.no_grad():
        system.c[0] = phi
        kernel = system.kernel(12)[0]
    assert (kernel[:4] - phi).abs().max() < 1e-12 and kernel[4:].abs().max() < 1e-12
    torch.manual_seed(0)
    diagonal = s4d.S4D(1, s4d.Config(d_state=4)).double()
    log_a = diagonal.system()[0].detach()
    exponentials = log_a.exp()[0, :, None] ** torch.arange(12)
    basis = torch.cat([exponentials.real, exponentials.imag]).T  # whatever C is
    target = torch.cat([phi, torch.zeros(8, dtype=torch.float64)])[:, None]
    residual = basis @ torch.linalg.lstsq(basis, target).solution - target
    assert residual.abs().max() > 0.1


def test_channels_heads_and_odd_lengths():
    shape = WindowShape(13, 5, channels=3, outputs=2)
    model = build(Config(d_model=8, d_state=6), shape).double()
    assert model(a_window(shape)).shape == (3, 5, 3, 2)


def test_learns_a_season():
    shape = WindowShape(24, 6, channels=2)
    train, valid = parts(seasonal(), shape)
    model = build(Config(d_model=8, d_state=16, layers=1, dropout=0.0), shape)
    model.fit(train, valid, FitConfig(steps=150, lr=1e-2, valid_every=50, batch_size=32))
    assert mean_error(model, valid) < 0.05 < mean_error(build("last_value", shape), valid)


def test_refuses_what_there_is_not():
    with pytest.raises(ValueError, match="layers of spacetime must be at least 0, and 0 without a d_model; got 2"):
        Config(d_model=None)
    with pytest.raises(ValueError, match="without a d_model gives points"):
        build(Config(d_model=None, layers=0), WindowShape(8, 2, outputs=2))
