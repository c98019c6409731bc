import torch

import runnel
from runnel import patterns


def test_its_layers():
    layers = patterns.parse("samba(window=8)*2, gla", "mlp")
    assert [layer.mixer.name for layer in layers] == ["mamba", "attention"] * 2 + ["gla"]
    assert [layer.block.name for layer in layers] == ["swiglu"] * 4 + ["mlp"]
    assert layers[1].mixer.options == {"window": 8}


def test_the_state_stops_growing():
    model = runnel.build("samba(window=8)*2", vocab_size=5, d_model=8)
    sizes = {model(torch.zeros(1, length, dtype=torch.long))[1].nbytes for length in (8, 50, 400)}
    assert len(sizes) == 1
