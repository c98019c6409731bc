"""Layers learn alone: from the teacher's inputs, and 1 is what silence costs."""

import pytest
import torch

import runnel
from runnel.objectives import attention_transfer
from runnel.types import Batch
from tests.conversions.support import convert, teacher

TOKENS = torch.arange(24).view(2, 12) % 16
BATCH = Batch(TOKENS, TOKENS)


@torch.no_grad()
def test_silence_costs_one_and_the_teacher_itself_nothing():
    model = teacher("attention(heads=4, head_dim=8)*2")
    made = convert(model, "gla")
    for mixer in made.mixers:
        mixer.out.weight.zero_()
    assert attention_transfer.loss(made, BATCH) == 1
    for layer in made.replaced:
        made.layers[layer].mixer = model.layers[layer].mixer
    assert attention_transfer.loss(made, BATCH) == 0


@torch.no_grad()
def test_it_is_the_mean_relative_error_on_the_teachers_inputs():
    model = teacher()
    made = convert(model, "mamba2")
    x, errors = model.embed(TOKENS), []
    lineage = runnel.Lineage.sequence(2, 12)
    for layer, new in zip(model.layers, made.mixers, strict=True):
        read = layer.mixer_norm(x)
        wanted = layer.mixer.reference(read)
        errors.append((new.reference(read) - wanted).square().sum() / wanted.square().sum())
        x, _ = layer(x, layer.mixer.init_state(2), lineage)
    torch.testing.assert_close(attention_transfer.loss(made, BATCH), sum(errors) / 2, rtol=1e-9, atol=0)


def test_an_earlier_layers_error_does_not_reach_a_later_one():
    made = convert(teacher(), "gla")
    first, second = made.mixers
    (attention_transfer.loss(made, BATCH)).backward()
    before = second.out.weight.grad.clone()
    made.zero_grad()
    with torch.no_grad():
        first.out.weight.zero_()
    attention_transfer.loss(made, BATCH).backward()
    assert torch.equal(second.out.weight.grad, before) and before.abs().max() > 0


def test_a_packed_row_is_its_documents():
    made = convert(teacher(), "gla")
    segments = torch.tensor([[0] * 5 + [1] * 7] * 2)
    packed = made.lessons(Batch(TOKENS, TOKENS, segments))
    second = made.lessons(Batch(TOKENS[:, 5:], TOKENS[:, 5:]))
    for one, other in zip(packed, second, strict=True):
        torch.testing.assert_close(one.y[:, 5:], other.y, rtol=1e-9, atol=1e-9)


def test_a_model_without_a_teacher_is_refused():
    with pytest.raises(ValueError, match="attention_transfer needs a model with a teacher"):
        attention_transfer.loss(teacher(), BATCH)
