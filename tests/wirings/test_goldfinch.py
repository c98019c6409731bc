import pytest
import torch

import runnel
from runnel import patterns


def test_its_layers():
    layers = patterns.parse("goldfinch(recurrent=4, gold=2)", "swiglu")
    assert [layer.mixer.name for layer in layers] == ["rwkv6", "channel_mix"] * 4 + ["gold", "channel_mix"] * 2
    assert all(layer.block is None for layer in layers)


def test_layers_of_attention_share_one_memory():
    model = runnel.build("goldfinch(recurrent=1, gold=3)", vocab_size=7, d_model=8)
    _, state = model(torch.zeros(1, 9, dtype=torch.long))
    memories = [state.layers[i].memory for i in (2, 4, 6)]
    assert memories[0].k.shape == (1, 9, 1, 1) and memories[1:] == [(), ()]


def test_it_needs_both():
    with pytest.raises(ValueError, match=">= 1; got 2, 0"):
        patterns.parse("goldfinch(gold=0)", None)
