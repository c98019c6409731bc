"""Attention to SUPRA: the teacher's projections and rotation behind a feature map that begins as relu."""

import pytest
import torch

from runnel.conversions import supra as page

from .support import check_against_reference, convert, teacher


@pytest.mark.parametrize("options", ["", ", kv_heads=2, rotated=4", ", kv_heads=1, rope_base=100.0, qk_norm=False"])
def test_the_layer_is_the_recipe_on_the_teachers_projections(options):
    check_against_reference(page, "supra", f"attention(heads=4, head_dim=8{options})*2")


def test_projections_are_the_teachers_to_the_bit():
    model = teacher("attention(heads=4, head_dim=8, kv_heads=2, qk_norm=False)")
    attention, made = model.mixers[0], convert(model, "supra").mixers[0]
    assert torch.equal(made.qkv.weight, attention.qkv.weight) and torch.equal(made.out.weight, attention.out.weight)
    assert torch.equal(made.k_map.weight[1], torch.eye(8, dtype=torch.float64)) and not made.q_map.bias.any()


def test_what_it_has_no_place_for_is_an_error():
    with pytest.raises(ValueError, match="supra has no place for attention's out_bias=True"):
        convert(teacher("attention(out_bias=True)"), "supra")


def test_stretched_rates_are_kept():
    stretched = "{'kind': 'linear', 'factor': 4.0}"
    check_against_reference(page, "supra", f"attention(heads=4, head_dim=8, rope={stretched})*2")
