"""The divergence from the teacher's law, by its definition; its gradient stays out of the teacher."""

import pytest
import torch

from runnel.objectives import logits_kl
from runnel.types import Batch
from tests.conversions.support import convert, teacher

TOKENS = torch.arange(24).view(2, 12) % 16
BATCH = Batch(TOKENS, TOKENS)


@torch.no_grad()
def test_it_is_the_mean_divergence_over_all_places():
    model = teacher()
    made = convert(model, "gla")
    p, q = model(TOKENS)[0].softmax(-1), made(TOKENS)[0].softmax(-1)
    nats = [sum(p[b, t, v] * (p[b, t, v] / q[b, t, v]).log() for v in range(16)) for b in range(2) for t in range(12)]
    torch.testing.assert_close(logits_kl.loss(made, BATCH), sum(nats) / 24, rtol=1e-9, atol=0)
    assert sum(nats) / 24 > 1e-3


@torch.no_grad()
def test_it_is_zero_where_the_laws_agree():
    model = teacher()
    made = convert(model, "gla")
    for layer in made.replaced:
        made.layers[layer].mixer = model.layers[layer].mixer
    assert logits_kl.loss(made, BATCH).abs() < 1e-12


def test_only_the_new_mixers_get_a_gradient():
    model = teacher()
    made = convert(model, "gla", "1/2")
    logits_kl.loss(made, BATCH).backward()
    assert all(p.grad is None for p in model.parameters())
    moved = {name for name, p in made.named_parameters() if p.grad is not None}
    assert moved == {name for name, _ in made.named_parameters() if name.startswith("layers.0.mixer.")}


def test_a_model_without_a_teacher_is_refused():
    with pytest.raises(ValueError, match="logits_kl needs a model with a teacher"):
        logits_kl.loss(teacher(), BATCH)
