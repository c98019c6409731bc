import pytest
import torch

from runnel import Lineage
from runnel.ops.learner import Learner, Trained, learn

from .support import close, mixer, normal, run


@pytest.mark.parametrize("learner", ["linear", "mlp"])
def test_primal_and_dual_form_agree_across_the_borders_of_mini_batches(learner):
    """50 tokens at once, and in pieces that begin and end inside mini-batches of 16."""
    made = mixer("ttt", learner=learner, head_dim=4)
    x = normal(2, 50, 8)
    whole, last = made(x, made.init_state(2), Lineage.sequence(2, 50))
    state, parts, start = made.init_state(2), [], 0
    for end in [1, 2, 20, 21, 40, 50]:
        lineage = Lineage.sequence(2, end - start).at(torch.full((2,), start))
        y, state = made(x[:, start:end], state, lineage)
        parts.append(y)
        start = end
    close(torch.cat(parts, dim=1), whole)
    for a, b in zip(last.now, state.now, strict=True):
        close(a, b)


def test_one_batch_of_everything_from_zero_weights_is_linear_attention():
    """Theorem 1 of the paper: no norm, no bias, W_0 = 0, eta = 1: z_t = sum over the past of (q_t . k_j) v_j."""
    q, k, v = [normal(2, 30, 2, 4, seed=s) for s in range(3)]
    rates = torch.tensor([1.0, 0.0, -torch.inf], dtype=torch.float64).expand(2, 30, 2, 3)
    zero = torch.zeros(2, 5, 4, dtype=torch.float64)
    memory = Trained((zero.expand(2, 2, 5, 4),), (zero.expand(2, 2, 5, 4),), ())
    z, _ = learn(Learner((zero,)), q, k, v, rates, 64, memory, Lineage.sequence(2, 30))
    weights = (torch.einsum("bthk,bjhk->bhtj", q, k) + 1).tril()  # the bias is a key that all tokens share
    close(z, torch.einsum("bhtj,bjhv->bthv", weights, v))


def test_what_is_learned_lowers_the_loss_on_a_pair_that_repeats():
    """One pair read 200 times: the error falls fourfold (a normed guess cannot reach every value)."""
    made = mixer("ttt", batch=1, rate=0.5)
    x = normal(1, 1, 8).expand(1, 200, 8)
    with torch.no_grad():
        _, k, v, rates = made._tokens(x)
        guess, _ = learn(made._learner(), k, k, v, rates, 1, made.init_state(1), Lineage.sequence(1, 200))
    errors = (guess - v).square().sum((0, 2, 3))
    assert errors[-1] < 0.25 * errors[0]


def test_bad_options_are_refused():
    with pytest.raises(ValueError, match=r"a learner of \['linear', 'mlp'\]; got 'tree'"):
        mixer("ttt", learner="tree")
    with pytest.raises(ValueError, match="batch >= 1; got 0"):
        mixer("ttt", batch=0)
    assert run(mixer("ttt", batch=1), normal(1, 3, 8)).shape == (1, 3, 8)
