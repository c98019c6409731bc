import pytest
import torch

from .support import assert_is_cell, mixer


@pytest.mark.parametrize("width", [None, 5])
def test_equals_the_cell_of_torch(width):
    made = mixer("elman", width=width)
    assert_is_cell(made, torch.nn.RNNCell(8, made.width).double())
