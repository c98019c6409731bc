"""Attention to T2R: its projections, rotation and norms stay, features take the place of the softmax."""

import pytest
import torch

from runnel.conversions import t2r as page

from .support import check_against_reference, convert, teacher


@pytest.mark.parametrize("options", ["", ", kv_heads=2, qk_norm=False, rope_base=500.0", ", kv_heads=1, rotated=4"])
def test_the_layer_is_the_recipe_on_the_teachers_projections(options):
    check_against_reference(page, "t2r(features=6)", f"attention(heads=4, head_dim=8{options})*2")


def test_every_weight_of_attention_is_kept_and_only_the_map_is_new():
    model = teacher("attention(heads=4, head_dim=8, bias=True, out_bias=True)*2")
    made = convert(model, "t2r")
    for old, new in zip(model.mixers, made.mixers, strict=True):
        kept, weights = old.state_dict(), new.state_dict()
        assert weights.keys() - kept.keys() == {"phi.weight", "phi.bias"}
        assert all(torch.equal(weights[name], x) for name, x in kept.items())
        assert weights["phi.weight"].shape == (4, 32, 8)


def test_what_it_has_no_place_for_is_an_error():
    with pytest.raises(ValueError, match="t2r has no place for attention's gated=True"):
        convert(teacher("attention(gated=True)"), "t2r")
