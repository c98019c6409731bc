import torch

from runnel import Lineage
from runnel.mixers.longhorn import implicit_update

from .support import close, mixer, normal


def test_the_update_is_the_minimiser_of_its_objective():
    """Against a numerical argmin: Newton's method on |s' - s|^2 + beta (s' . k - x)^2."""
    s, k, x, beta = normal(6, 4), normal(6, 4, seed=1), normal(6, 1, seed=2), normal(6, 1, seed=3).sigmoid()
    for row in range(6):

        def objective(new, row=row):
            error = (new * k[row]).sum() - x[row, 0]
            return (new - s[row]).square().sum() + beta[row, 0] * error**2

        new = torch.zeros(4, dtype=torch.float64)
        for _ in range(3):
            gradient = torch.autograd.functional.jacobian(objective, new)
            new = new - torch.linalg.solve(torch.autograd.functional.hessian(objective, new), gradient)
        close(implicit_update(s, k, x, beta)[row], new)


def test_with_one_key_channel_the_layer_is_that_update():
    """k k^T is then its own diagonal, so that nothing is approximated."""
    made = mixer("longhorn", d_state=1, conv=1)
    made._select = lambda x: (x.sigmoid(), normal(*x.shape[:2], 1, seed=4), torch.ones(*x.shape[:2], 1).double())
    x = normal(1, 30, 8)
    _, state = made(x, made.init_state(1), Lineage.sequence(1, 30))
    u = torch.nn.functional.silu(made.input(x).chunk(2, dim=-1)[0] * made.conv_weight[:, 0] + made.conv_bias)
    beta, k, _ = made._select(u)
    s = torch.zeros(1, 16, 1, dtype=torch.float64)
    for t in range(30):
        s = implicit_update(s, k[:, t, None].expand(-1, 16, -1), u[:, t, :, None], beta[:, t, :, None])
    close(state.memory, s)


def test_it_never_forgets_faster_than_it_writes_and_stays_stable():
    """Decays are in (0, 1] for keys of any size, so long inputs of large keys leave a bounded state."""
    made = mixer("longhorn")
    x = 100 * normal(1, 3_000, 8)
    with torch.no_grad():
        _, state = made(x, made.init_state(1), Lineage.sequence(1, 3_000))
        _, short = made(x[:, :300], made.init_state(1), Lineage.sequence(1, 300))
    assert state.memory.isfinite().all() and state.memory.abs().max() < 20 * short.memory.abs().max()
