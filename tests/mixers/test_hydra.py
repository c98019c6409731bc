import pytest
import torch

import runnel
from runnel import Lineage, native

from .support import close, mixer, normal


def read(made, x, prefix, state=None):
    lineage = Lineage.sequence(*x.shape[:2]).with_prefix(torch.full((x.shape[0],), prefix))
    return made(x, made.init_state(x.shape[0]) if state is None else state, lineage)


@pytest.mark.parametrize("prefix", [1, 7, 12])
def test_it_is_the_quasiseparable_matrix(prefix):
    x = normal(2, 12, 8).requires_grad_()
    made = mixer("hydra", d_state=3, head_dim=4)
    found, expected = read(made, x, prefix)[0], made.reference(x, prefix)
    close(found, expected)
    inputs, weights = [x, *made.parameters()], normal(2, 12, 8, seed=1)
    for got, want in zip(
        torch.autograd.grad((found * weights).sum(), inputs, materialize_grads=True),
        torch.autograd.grad((expected * weights).sum(), inputs, materialize_grads=True),
        strict=True,
    ):
        close(got, want)


def test_long_rows_are_read_backwards_in_chunks():
    """Reading from the other side with the directions exchanged is the same matrix, transposed in place."""
    made, x = mixer("hydra", conv=1), normal(1, 150, 8)
    turned = mixer("hydra", conv=1)
    order = list(range(made.input.out_features))
    starts, n, h = 2 * made.inner, made.d_state, made.heads
    for begin, size in ((starts, n), (starts + 2 * n, n), (starts + 4 * n, h)):
        order[begin : begin + 2 * size] = [*order[begin + size : begin + 2 * size], *order[begin : begin + size]]
    convolved = [row - made.inner for row in order[made.inner : made.inner + made.mixed]]
    with torch.no_grad():
        turned.input.weight.copy_(made.input.weight[order])
        turned.conv_weight.copy_(made.conv_weight[convolved])
    close(read(turned, x.flip(1), 150)[0].flip(1), read(made, x, 150)[0])


def test_every_token_sees_every_other_in_a_prefix_and_none_after_it_without():
    made, x = mixer("hydra"), normal(1, 9, 8)
    for token in range(9):
        other = x.clone()
        other[:, token] += 1
        changed = (read(made, other, 5)[0] - read(made, x, 5)[0]).abs().amax(-1)[0] > 1e-12
        assert changed.tolist() == [token <= t or (t < 5 and token < 5) for t in range(9)]


def test_a_prefix_leaves_the_state_of_a_causal_call_behind():
    made, x = mixer("hydra"), normal(2, 20, 8)
    _, state = read(made, x[:, :12], 12)
    _, causal = made(x[:, :12], made.init_state(2), Lineage.sequence(2, 12))
    for found, wanted in zip(state, causal, strict=True):
        close(found, wanted)
    y, _ = made(x[:, 12:], state, Lineage.sequence(2, 8))
    close(y, read(made, x, 12)[0][:, 12:])


def test_padded_rows_are_read_as_alone():
    model = runnel.build("hydra*2", vocab_size=7, d_model=8).double()
    tokens = torch.randint(0, 7, (2, 8), generator=torch.Generator().manual_seed(0))
    valid = torch.tensor([[True] * 8, [False, True, True, False, True, True, False, False]])
    whole, _ = model.features(tokens, lineage=Lineage.padded(valid).with_prefix(torch.tensor([8, 4])))
    for row in range(2):
        own = tokens[row, valid[row]][None]
        alone, _ = model.features(own, lineage=Lineage.sequence(*own.shape).with_prefix(torch.tensor([own.shape[1]])))
        close(whole[row, valid[row]], alone[0])


def test_as_an_encoder_it_learns_what_comes_next_in_random_tokens():
    """Nothing causal is ever below log 4 = 1.39."""
    model = runnel.build("hydra", vocab_size=4, d_model=16)
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-2)
    generator, losses = torch.Generator().manual_seed(0), []
    for _ in range(45):
        text = torch.randint(0, 4, (16, 8), generator=generator)
        logits, _ = model(text, lineage=Lineage.sequence(16, 8).with_prefix(torch.full((16,), 8)))
        loss = -model.head.log_prob(logits[:, :-1], text[:, 1:]).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[0] > 1.3 and sum(losses[-5:]) / 5 < 0.8


def test_a_prefix_that_is_not_the_beginning_is_refused():
    model = runnel.build("(gla, hydra)", vocab_size=7, d_model=8)
    lineage = Lineage.sequence(1, 3).with_prefix(torch.tensor([2]))
    _, state = model(torch.zeros(1, 5, dtype=torch.long))
    with pytest.raises(ValueError, match="in the first call of a row; got 5 tokens before"):
        model(torch.zeros(1, 3, dtype=torch.long), state, lineage)


@pytest.mark.skipif(not native.available(), reason="the extension was not built")
def test_a_packed_model_refuses_a_prefix():
    model = runnel.build("(gla, hydra)", vocab_size=7, d_model=8)
    lineage = Lineage.sequence(1, 3).with_prefix(torch.tensor([2]))
    with pytest.raises(ValueError, match="a prefix needs the model that it was packed from"):
        runnel.pack(model, "f32")(torch.zeros(1, 3, dtype=torch.long), None, lineage)
