import pytest
import torch

from .support import assert_is_cell, close, mixer


@pytest.mark.parametrize("width", [None, 5])
def test_equals_the_cell_of_torch(width):
    made = mixer("lstm", width=width)
    assert_is_cell(made, torch.nn.LSTMCell(8, made.width).double())


def test_the_cell_begins_by_remembering():
    made = mixer("lstm")
    close(made.input.bias.view(4, 8).sum(1), torch.tensor([0.0, 8.0, 0.0, 0.0]).double())
