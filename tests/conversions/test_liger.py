"""Attention to Liger: not one parameter more, every weight the attention's, gates read off the keys."""

import pytest
import torch

from runnel.conversions import liger as page

from .support import check_against_reference, convert, inputs, teacher

PLAIN = "attention(heads=4, head_dim=8, kv_heads=2, qk_norm=False)*2"


def test_the_layer_is_the_recipe_on_the_teachers_projections():
    check_against_reference(page, "liger", PLAIN)


@pytest.mark.parametrize("options", ["", "kv_heads=1, bias=True, out_bias=True", "qk_norm=False, rope_base=500.0"])
def test_it_has_the_attentions_weights_and_no_others(options):
    model = teacher(f"attention(heads=4, head_dim=8{', ' + options if options else ''})*2")
    made = convert(model, "liger(window=4)")
    for old, new in zip(model.mixers, made.mixers, strict=True):
        theirs = old.state_dict()
        assert theirs.keys() == new.state_dict().keys()
        assert all(torch.equal(x, theirs[name]) for name, x in new.state_dict().items())
    assert sum(p.numel() for p in made.parameters()) == sum(p.numel() for p in model.parameters())


def test_half_of_a_first_token_is_its_value_and_half_its_features_product():
    """Of one token the softmax of attention is 1; the recurrence reads softmax(q) . softmax(k)."""
    model = teacher(PLAIN)
    made = convert(model, "liger(window=64)")
    first, old, new = inputs(1, 1, 32), model.mixers[0], made.mixers[0]
    q, k, v = new._heads_of(first)
    k, v = [y.repeat_interleave(2, dim=-2) for y in (k, v)]
    read = (q.softmax(-1) * k.softmax(-1)).sum(-1, keepdim=True)
    torch.testing.assert_close(new.reference(first), old.out(((0.5 * read + 0.5) * v).flatten(-2)))


def test_what_it_has_no_place_for_is_an_error():
    with pytest.raises(ValueError, match="liger has no place for attention's gated=True"):
        convert(teacher("attention(gated=True)"), "liger")
    with pytest.raises(ValueError, match="liger needs window >= 1; got 0"):
        convert(teacher(), "liger(window=0)")
