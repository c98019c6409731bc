import pytest
import torch

from runnel import Lineage

from .support import close, mixer, normal, run


def test_chunks_equal_the_loop_from_a_state_that_is_not_zero():
    """Four chunks of the WY form after a first call, against single steps."""
    made = mixer("deltanet", d_model=12, head_dim=4, beta_max=2.0)
    x = normal(2, 230, 12)
    y, state = made(x[:, :30], made.init_state(2), Lineage.sequence(2, 30))
    fast, last = made(x[:, 30:], state, Lineage.sequence(2, 200))
    slow = []
    for t in range(30, 230):
        step, state = made(x[:, t : t + 1], state, Lineage.sequence(2, 1))
        slow.append(step)
    close(fast, torch.cat(slow, dim=1))
    close(last.memory, state.memory)
    close(torch.cat([y, fast], dim=1), run(made, x))


@pytest.mark.parametrize("beta_max", [1.0, 2.0])
def test_the_state_never_grows_without_values(beta_max):
    """Every transition is a contraction, or a reflection: with values of zero the norm of the state cannot grow."""
    made = mixer("deltanet", beta_max=beta_max)
    with torch.no_grad():
        made.inputs.project.weight[-8:] = 0  # the values
    state = made.init_state(1)._replace(memory=normal(1, 1, 8, 8))
    before = state.memory.norm()
    _, after = made(normal(1, 300, 8), state, Lineage.sequence(1, 300))
    assert 0 < after.memory.norm() <= before + 1e-9


def test_a_beta_beyond_two_is_refused():
    with pytest.raises(ValueError, match=r"0 < beta_max <= 2; got 3"):
        mixer("deltanet", beta_max=3.0)
