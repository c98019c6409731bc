import pytest
import torch

from runnel import Lineage

from .support import close, mixer, normal, run


def test_every_token_uses_its_best_memories_and_the_shared_one():
    made = mixer("mom", memories=5, active=2)
    x = normal(2, 50, 8)
    shares = made._route(x)[..., 0]
    assert ((shares[..., :5] > 0).sum(-1) == 2).all() and (shares[..., 5] == 1).all()
    close(shares[..., :5].sum(-1), torch.ones(2, 50, dtype=torch.float64))
    scores = made.router(x)
    assert (shares[..., :5].argmax(-1) == scores.argmax(-1)).all()


def test_an_unused_memory_is_left_exactly_as_it_is():
    made = mixer("mom", memories=3, active=1)
    x = normal(1, 40, 8)
    _, before = made(x, made.init_state(1), Lineage.sequence(1, 40))
    token = normal(1, 1, 8, seed=1)
    used = made._route(token)[0, 0, :, 0] > 0
    _, after = made(token, before, Lineage.sequence(1, 1))
    same = (before.memory == after.memory).unflatten(1, (4, 1)).flatten(2).all(-1)[0]
    assert same.tolist() == (~used).tolist() and used.sum() == 2


def test_each_memory_is_the_gated_delta_rule_over_its_own_tokens():
    """The paper's packing: a memory's tokens alone, as a sequence of their own, leave the same memory."""
    made = mixer("mom", memories=3, active=1, conv=1)
    x = normal(1, 60, 8)
    _, state = made(x, made.init_state(1), Lineage.sequence(1, 60))
    chosen = made._route(x)[0, :, :3, 0].argmax(-1)
    for m in range(3):
        own = x[:, chosen == m]
        _, alone = made(own, made.init_state(1), Lineage.sequence(*own.shape[:2]))
        close(state.memory[:, m], alone.memory[:, m])


def test_one_memory_is_read_with_weight_one():
    made = mixer("mom", memories=1, active=1)
    assert (made._route(normal(1, 9, 8)) == 1).all()
    assert run(made, normal(1, 9, 8)).isfinite().all()


@pytest.mark.parametrize("active", [0, 5])
def test_impossible_options(active):
    with pytest.raises(ValueError, match=f"1 <= active <= memories; got {active} of 4"):
        mixer("mom", active=active)
