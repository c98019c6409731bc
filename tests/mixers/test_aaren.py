import torch

from runnel import Lineage
from runnel.state import leaves

from .support import close, mixer, normal, run


def test_prefix_softmax_with_logits_of_eighty_in_float32():
    """The paper's check: explicit softmax over every prefix, for scores of +-80, whole and step by step."""
    made = mixer("aaren", head_dim=4)
    scores, v = made._project(normal(1, 200, 8))
    scores = 80 * scores / scores.abs().amax()
    masked = scores[:, None].expand(1, 200, 200, 2).masked_fill(torch.ones(200, 200).triu(1).bool()[..., None], -1e9)
    expected = made.out(torch.einsum("btjh,bjhv->bthv", masked.softmax(2), v).flatten(-2))
    made._project = lambda x: (scores.float(), v.float())
    close(run(made.float(), normal(1, 200, 8).float()).double(), expected, bound=1e-5)
    state, steps = made.init_state(1), []
    for t in range(200):
        made._project = lambda x, t=t: (scores[:, t : t + 1].float(), v[:, t : t + 1].float())
        y, state = made(torch.zeros(1, 1, 8), state, Lineage.sequence(1, 1))
        steps.append(y)
    close(torch.cat(steps, dim=1).double(), expected, bound=1e-5)


def test_the_state_is_three_numbers_per_channel_and_head():
    made = mixer("aaren", d_model=32, head_dim=8)
    _, state = made(normal(1, 1_000, 32), made.init_state(1), Lineage.sequence(1, 1_000))
    assert sum(leaf.numel() for leaf in leaves(state)) == 4 * (8 + 2)


def test_one_query_for_all_tokens():
    """The weight of a token depends on the token alone: a permuted past gives the same last output."""
    made = mixer("aaren")
    x = normal(1, 6, 8)
    close(run(made, x)[:, -1], run(made, x[:, [3, 0, 4, 1, 2, 5]])[:, -1])
