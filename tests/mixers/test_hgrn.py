import pytest
import torch

from runnel import Lineage

from .support import close, mixer, normal


def test_gates_stay_in_the_range_of_the_layer():
    """Layers with rising ranges have rising bounds, whatever is learned."""
    lower, upper = mixer("hgrn", high=0.5), mixer("hgrn", low=0.5, high=0.9)
    with torch.no_grad():
        for made in (lower, upper):
            made.bound.add_(5 * normal(8))
    assert (lower.gamma() <= upper.gamma()).all()
    f, _ = upper._project(1e3 * normal(2, 50, 8))
    assert (f >= upper.gamma() - 1e-12).all() and f.max() <= 1


def test_a_bound_lengthens_the_memory():
    """How much of the first token is left after 20 others: at least gamma^20, and almost nothing without a bound."""
    left = []
    for low, high in ((0.9, 0.9), (0.0, 0.0)):
        made = mixer("hgrn", low=low, high=high)
        x = normal(1, 21, 8).requires_grad_()
        _, state = made(x, made.init_state(1), Lineage.sequence(1, 21))
        left.append(torch.autograd.grad(state.h.square().sum(), x)[0][0, 0].abs().max())
    assert left[0] > 1e3 * left[1]


def test_the_state_turns_by_theta():
    """With open gates (f = 1, nothing written) h only turns."""
    made = mixer("hgrn")
    made._project = lambda x: (torch.ones_like(x), torch.zeros_like(x).to(torch.cdouble))
    h = normal(2, 8, 2)
    _, state = made(normal(2, 7, 8), type(made.init_state(1))(h), Lineage.sequence(2, 7))
    close(torch.view_as_complex(state.h), torch.view_as_complex(h) * (7j * made.theta).exp())


def test_a_bound_of_one_is_refused():
    with pytest.raises(ValueError, match=r"0 <= low <= high < 1; got low 0\.0, high 1"):
        mixer("hgrn", high=1)
