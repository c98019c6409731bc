"""Attention to gated_deltanet: the layer begins as the recipe says, from the attention's own weights."""

import pytest
import torch

from runnel.conversions import Projections
from runnel.conversions import gated_deltanet as page

from .support import check_against_reference, convert, teacher


def test_the_layer_is_the_recipe_on_the_teachers_projections():
    check_against_reference(page, "gated_deltanet")


def test_projections_are_the_teachers_to_the_bit():
    model = teacher("attention(heads=4, head_dim=4, kv_heads=1, qk_norm=False)")
    attention, made = model.mixers[0], convert(model, "gated_deltanet(conv=2)").mixers[0]
    p = Projections.of(attention)
    assert torch.equal(made.qkv.weight, torch.cat([p.q, p.k, p.v]).flatten(0, 1))
    assert torch.equal(p.k[3].flatten(), attention.qkv.weight[16:20].flatten())
    assert made.conv_weight.shape[1] == 2 and torch.equal(made.out.weight, attention.out.weight)


def test_what_it_has_no_place_for_is_an_error():
    with pytest.raises(ValueError, match="gated_deltanet has no place for attention's gated=True"):
        convert(teacher("attention(gated=True)"), "gated_deltanet")
    with pytest.raises(ValueError, match="beta_max <= 2; got 4, 3"):
        convert(teacher(), "gated_deltanet(beta_max=3)")
