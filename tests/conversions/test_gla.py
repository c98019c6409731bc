"""Attention to gla: the layer begins as the recipe says, from the attention's own weights."""

import pytest
import torch

from runnel.conversions import Projections
from runnel.conversions import gla as page

from .support import check_against_reference, convert, teacher


def test_the_layer_is_the_recipe_on_the_teachers_projections():
    check_against_reference(page, "gla")


def test_gates_are_pooled_keys():
    """With a rank of one run per head, a gate's logit is the mean of the head's key channels."""
    model = teacher("attention(heads=4, head_dim=8, qk_norm=False)")
    made = convert(model, "gla(rank=4)").mixers[0]
    x = torch.randn(1, 3, 32, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    keys = made.qk(x).chunk(2, dim=-1)[1].unflatten(-1, (4, 8))
    torch.testing.assert_close(made.gate(x).unflatten(-1, (4, 8)), keys.mean(-1, keepdim=True).expand_as(keys))
    assert torch.equal(made.v.weight, Projections.of(model.mixers[0]).v.flatten(0, 1))


def test_shapes_that_do_not_fit_are_errors():
    with pytest.raises(ValueError, match=r"heads \* head_dim = d_model; got 4 \* 4 and 32"):
        convert(teacher("attention(heads=4, head_dim=4)"), "gla")
    with pytest.raises(ValueError, match="rank must divide the 32 channels of the keys; got 5"):
        convert(teacher(), "gla(rank=5)")
