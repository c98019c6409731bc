import pytest
import torch

from .support import assert_is_cell, mixer, normal


@pytest.mark.parametrize("width", [None, 5])
def test_equals_the_cell_of_torch(width):
    made = mixer("gru", width=width)
    with torch.no_grad():
        made.candidate_bias.copy_(normal(made.width, seed=1))
    assert_is_cell(made, torch.nn.GRUCell(8, made.width).double(), made.candidate_bias)


def test_an_empty_cell_is_refused():
    with pytest.raises(ValueError, match="a cell needs width >= 1; got 0"):
        mixer("gru", width=0)
