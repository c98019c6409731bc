import pytest
import torch

from runnel import Lineage

from .support import close, mixer, normal


def test_parity_by_hand_at_length_two_thousand():
    """A block that swaps (centred: multiplies (1, -1) by -1) at every one follows parity exactly, at any length."""
    made = mixer("block_rnn", d_model=2, p=1.0)
    bits = torch.randint(0, 2, (4, 2_000), generator=torch.Generator().manual_seed(0))
    keep = torch.tensor([[0.5, -0.5], [-0.5, 0.5]], dtype=torch.float64)
    made.transitions = lambda x: torch.where(x[..., :1, None, None] > 0, -keep, keep)
    start = torch.nn.functional.one_hot(torch.tensor(0), 2_000)[:, None, None] * torch.tensor([1.0, -1.0]).double()
    made._values = lambda x: start.expand(4, -1, -1, -1)
    made.out.weight.data = torch.eye(2, dtype=torch.float64)
    x = bits[..., None].expand(-1, -1, 2).double()
    y, _ = made(x, made.init_state(4), Lineage.sequence(4, 2_000))
    parity = (bits[:, 1:].cumsum(1)) % 2
    close(y[:, 1:, 0], 1.0 - 2.0 * parity.double())


@pytest.mark.parametrize("p", [1.0, 1.2])
def test_columns_are_centred_and_the_largest_has_norm_one(p):
    made = mixer("block_rnn", block=4, p=p)
    a = made.transitions(normal(3, 50, 8))
    close(a.sum(-2), torch.zeros_like(a[..., 0, :]))
    close(a.norm(p=p, dim=-2).amax(-1), torch.ones_like(a[..., 0, 0]))


def test_with_p_one_the_state_grows_at_most_by_what_is_added():
    made = mixer("block_rnn", p=1.0)
    x = normal(1, 3_000, 8)
    _, state = made(x, made.init_state(1), Lineage.sequence(1, 3_000))
    assert state.h.abs().sum() <= made._values(x).abs().sum()


def test_bad_blocks_are_refused():
    with pytest.raises(ValueError, match="block must divide d_model; got block 3, d_model 8"):
        mixer("block_rnn", block=3)
    with pytest.raises(ValueError, match="block >= 2 and p >= 1; got block 1"):
        mixer("block_rnn", block=1)
