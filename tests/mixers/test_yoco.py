import pytest
import torch

import runnel

from .support import normal

LENGTH = 50


def text():
    return torch.randint(0, 5, (1, LENGTH), generator=torch.Generator().manual_seed(0))


def held(pattern):
    """The state after a text, without the lengths of its rows."""
    state = runnel.build(pattern, vocab_size=5, d_model=8)(text())[1]
    return state.nbytes - 8


def test_only_one_layer_remembers():
    assert held("yoco*4") == held("yoco") == held("attention")
    below = held("attention(window=8)*2")
    assert held("attention(window=8)*2, yoco*2") == below + held("yoco") < held("attention*4") / 2


def test_all_layers_read_the_keys_and_values_of_the_first():
    """Those of the first layer changed, a later one reads others; its own norm changed, they stay."""
    model = runnel.build("(yoco+none)*3", vocab_size=5, d_model=8).double()
    read = []
    model.layers[2].register_forward_pre_hook(lambda _, arguments: read.append(arguments[3]["keys_values"][0]))
    with torch.no_grad():
        for norm in (model.layers[2].mixer_norm, model.layers[1].mixer_norm, model.layers[0].mixer_norm):
            model.features(text())
            norm.weight.mul_(2 + normal(8))
        model.features(text())
    first, second, third, last = read
    assert torch.equal(first, second) and torch.equal(second, third) and not torch.allclose(third, last)


def test_layers_of_other_sizes_cannot_be_linked():
    with pytest.raises(ValueError, match=r"layers cannot be linked: layer 2 .*'kv_heads': 4.*got .*'kv_heads': 2"):
        runnel.build("(yoco(heads=4)*2, yoco(heads=4, kv_heads=2))", vocab_size=5, d_model=16)
