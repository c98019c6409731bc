import pytest
import torch

import runnel
from runnel import patterns


def test_bytes_are_those_of_the_spans():
    """Every layer holds its window, full ones the text: k and v of 8 numbers in float32, and a position."""
    model = runnel.build("spans(layers=4, full=[1], window=6)", vocab_size=5, d_model=8)
    _, state = model(torch.zeros(1, 100, dtype=torch.long))
    assert state.nbytes == (3 * 5 + 100) * (2 * 8 * 4 + 8) + 8


def test_all_full_is_a_plain_transformer():
    assert patterns.parse("spans(layers=2, full=[0, 1])", None) == patterns.parse("attention*2", None)


def test_full_layers_are_layers():
    with pytest.raises(ValueError, match=r"full layers among its 4, from 0; got \[4\]"):
        patterns.parse("spans(layers=4, full=[4])", None)
