import pytest
import torch

from runnel import Lineage

from .support import close, mixer, normal, run


@pytest.mark.parametrize("head_dim", [1, 4])
def test_equals_the_surrogate_attention_of_the_paper(head_dim):
    """The quadratic form: every pair of tokens, weighted by the product of what lies between them."""
    made = mixer("gateloop", head_dim=head_dim)
    x = normal(2, 12, 8)
    q, k, v = made._project(x)
    a = made.transitions(x)
    y = torch.zeros_like(v)
    for t in range(12):
        for j in range(t + 1):
            between = a[:, j + 1 : t + 1].prod(1)
            y[:, t] += (q[:, t] * k[:, j] * between).real.sum(-1, keepdim=True) * v[:, j]
    close(run(made, x), made._output(y, x))


def test_the_state_stays_bounded_over_ten_thousand_steps():
    made = mixer("gateloop")
    x = normal(1, 10_000, 8)
    with torch.no_grad():
        _, state = made(x, made.init_state(1), Lineage.sequence(1, 10_000))
        a, (_, k, v) = made.transitions(x).abs(), made._project(x)
    assert a.max() < 1
    assert state.memory.abs().max() <= (k * v).abs().max() / (1 - a.max())


def test_a_token_can_clear_the_memory_and_another_can_keep_it():
    """What a fixed decay cannot do: a = 0 at reset tokens, 1 elsewhere, so that the state is a sum since the reset."""
    made = mixer("gateloop")
    reset = torch.tensor([0, 0, 1, 0, 0, 0, 1, 0, 0]).bool()
    made.transitions = lambda x: torch.where(reset[:, None, None], 0, torch.ones(1, 9, 8, 1, dtype=torch.cdouble))
    x = normal(1, 9, 8)
    _, state = made(x, made.init_state(1), Lineage.sequence(1, 9))
    _, k, v = made._project(x)
    close(state.memory[..., 0].flatten(), (k * v)[0, 6:].sum(0).flatten())
