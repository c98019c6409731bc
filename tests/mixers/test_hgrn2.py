import pytest
import torch

from runnel import Lineage

from .support import mixer, normal


def test_the_state_grows_without_a_parameter_more():
    """The paper's claim: the expansion costs nothing, at width 1 it is HGRN's vector state."""
    sizes = []
    for head_dim in (1, 4, 8):
        made = mixer("hgrn2", head_dim=head_dim)
        sizes.append((sum(p.numel() for p in made.parameters()), made.init_state(1).memory.numel()))
    assert sizes[0][0] == sizes[1][0] == sizes[2][0]
    assert [state for _, state in sizes] == [8, 32, 64]


def test_the_state_is_a_running_mean_of_inputs():
    """Row k of S is f S + (1 - f) i: it stays between the extremes of the inputs, gate by gate."""
    made = mixer("hgrn2")
    x = normal(1, 300, 8)
    with torch.no_grad():
        i = made._project(x)[2]
        memory = made(x, made.init_state(1), Lineage.sequence(1, 300))[1].memory
    assert (memory <= i.amax(1).clamp(min=0)[..., None, :] + 1e-9).all()
    assert (memory >= i.amin(1).clamp(max=0)[..., None, :] - 1e-9).all()


@pytest.mark.parametrize("bound", [0.0, 0.5, 0.9])
def test_gates_stay_above_their_bound_and_tie_to_keys(bound):
    made = mixer("hgrn2", lower_bound=bound)
    _, k, _, log_f = made._project(1e3 * normal(1, 50, 8))
    assert log_f.exp().min() >= bound - 1e-12 and log_f.isfinite().all()
    torch.testing.assert_close(k, 1 - log_f.exp(), rtol=1e-9, atol=1e-12)


def test_a_bound_of_one_is_refused():
    with pytest.raises(ValueError, match="0 <= lower_bound < 1; got 1"):
        mixer("hgrn2", lower_bound=1)
