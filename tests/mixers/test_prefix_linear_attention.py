import pytest
import torch

from runnel import Lineage, build

from .support import close, mixer, normal


def read(made, x, prefix, state=None):
    lineage = Lineage.sequence(*x.shape[:2])
    if prefix:
        lineage = lineage.with_prefix(torch.full((x.shape[0],), prefix))
    return made(x, made.init_state(x.shape[0]) if state is None else state, lineage)


@pytest.mark.parametrize("prefix", [1, 7, 20])
def test_encoding_then_decoding_equals_the_masked_parallel_form(prefix):
    """The paper's check: the prompt in one call, then one token at a time, against the definition over the whole."""
    made = mixer("prefix_linear_attention", head_dim=4, feature_dim=3)
    x = normal(2, 20, 8).requires_grad_()
    pieces = [read(made, x[:, :prefix], prefix)]
    for t in range(prefix, 20):
        pieces.append(read(made, x[:, t : t + 1], 0, pieces[-1][1]))
    y, expected = torch.cat([y for y, _ in pieces], dim=1), made.reference(x, prefix)
    close(y, expected)
    close(read(made, x, prefix)[0], expected)
    parameters = [x, *made.parameters()]
    grads = [torch.autograd.grad(z.sin().sum(), parameters) for z in (y, expected)]
    for got, want in zip(*grads, strict=True):
        close(got, want)


def test_the_order_inside_the_prefix_does_not_matter_to_what_follows():
    """The paper's point: with a causal reading, what a state keeps of a prompt depends on what came first."""
    made = mixer("prefix_linear_attention")
    x = normal(1, 9, 8)
    swapped = x[:, [3, 4, 5, 0, 1, 2, 6, 7, 8]]
    close(read(made, x, 6)[0][:, 6:], read(made, swapped, 6)[0][:, 6:])
    back = read(made, swapped, 6)[0][:, [3, 4, 5]]
    assert not torch.allclose(read(made, x, 6)[0][:, :3], read(made, x, 0)[0][:, :3])
    assert not torch.allclose(back, read(made, swapped, 0)[0][:, [3, 4, 5]])


def test_prefixes_of_different_lengths_in_padded_rows():
    model = build("prefix_linear_attention(feature_dim=4)", vocab_size=7, d_model=8, n_layers=2, seed=0).double()
    tokens = torch.randint(0, 7, (2, 9), generator=torch.Generator().manual_seed(0))
    valid = torch.tensor([[True] * 9, [False, False, True, True, True, False, True, True, False]])
    lineage = Lineage.padded(valid).with_prefix(torch.tensor([5, 4]))
    logits, state = model(tokens, lineage=lineage)
    for row, prefix in ((0, 5), (1, 4)):
        own = tokens[row : row + 1, valid[row]]
        alone = Lineage.sequence(*own.shape).with_prefix(torch.tensor([prefix]))
        expected, last = model(own, lineage=alone)
        close(logits[row, valid[row]], expected[0])
        step = torch.ones(1, 1, dtype=torch.long)
        close(model(step, state.fork([row]))[0], model(step, last)[0])


def test_impossible_options():
    with pytest.raises(ValueError, match="feature_dim >= 1; got 0"):
        mixer("prefix_linear_attention", feature_dim=0)
