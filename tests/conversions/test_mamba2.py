"""Attention to mamba2: the layer begins as the recipe says, from the attention's own weights."""

import pytest
import torch

from runnel.conversions import Projections
from runnel.conversions import mamba2 as page

from .support import check_against_reference, convert, inputs, teacher


def test_the_layer_is_the_recipe_on_the_teachers_projections():
    check_against_reference(page, "mamba2")


def test_a_bias_of_the_projections_is_kept():
    model = teacher("attention(heads=4, head_dim=8, kv_heads=2, bias=True)")
    with torch.no_grad():
        model.mixers[0].qkv.bias.normal_(generator=torch.Generator().manual_seed(2))
    made, x = convert(model, "mamba2").mixers[0], inputs(1, 7, 32)
    torch.testing.assert_close(made.reference(x), page.reference(model.mixers[0], made, x), rtol=1e-9, atol=1e-9)
    assert torch.equal(made.conv_bias[8:16], model.mixers[0].qkv.bias[48:56])  # the second head's values: the first's


def test_projections_are_the_teachers_to_the_bit_and_groups_are_repeated():
    model = teacher("attention(heads=4, head_dim=8, kv_heads=2, qk_norm=False)")
    attention, made = model.mixers[0], convert(model, "mamba2").mixers[0]
    q, k, v = attention.qkv.weight.split([32, 16, 16])
    x, b, c = made.input.weight[32 : 32 + 96].split([32, 32, 32])
    twice = [y.unflatten(0, (2, 8))[[0, 0, 1, 1]].flatten(0, 1) for y in (v, k)]
    assert torch.equal(c, q) and torch.equal(x, twice[0]) and torch.equal(b, twice[1])
    assert torch.equal(made.out.weight, attention.out.weight)


def test_the_scale_of_a_head_norm_is_folded_in():
    model = teacher("attention(heads=2, head_dim=16)")
    attention = model.mixers[0]
    folded = Projections.of(attention).k[1, 3]
    torch.testing.assert_close(folded, attention.k_norm.weight[3] * attention.qkv.weight[32 + 16 + 3])


def test_what_it_has_no_place_for_is_an_error():
    with pytest.raises(ValueError, match="mamba2 has no place for attention's out_bias=True"):
        convert(teacher("attention(out_bias=True)"), "mamba2")
    with pytest.raises(ValueError, match="conv >= 1; got 0"):
        convert(teacher(), "mamba2(conv=0)")
