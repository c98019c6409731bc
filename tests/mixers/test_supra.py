import pytest
import torch

import runnel

from .support import close, mixer, normal, run


def test_heads_forget_at_the_rates_of_alibi():
    made = mixer("supra", heads=4, head_dim=2)
    rates = made.log_decay(normal(1, 1, 8))[0, 0]
    close(rates, -torch.tensor([1 / 4, 1 / 16, 1 / 64, 1 / 256], dtype=rates.dtype))


def test_the_feature_map_is_a_layer_with_relu():
    made = mixer("supra", heads=2, head_dim=4)
    x = normal(1, 5, 2, 4)
    with torch.no_grad():
        made.q_map.weight.copy_(normal(2, 4, 4))
        made.q_map.bias.copy_(normal(2, 4))
    for head in range(2):
        wanted = (x[:, :, head] @ made.q_map.weight[head].T + made.q_map.bias[head]).relu()
        close(made.q_map(x)[:, :, head], wanted)


def test_outputs_do_not_depend_on_the_size_of_the_values():
    """The norm takes the place of the denominator."""
    made = mixer("supra", head_dim=4)
    x = normal(1, 12, 8)
    before = run(made, x)
    with torch.no_grad():
        made.qkv.weight[16:].mul_(100)
    torch.testing.assert_close(run(made, x), before, rtol=1e-2, atol=1e-2)


def test_mistakes():
    with pytest.raises(ValueError, match="even head_dim and kv_heads that divide 2; got 4, 3"):
        runnel.build("supra(heads=2, head_dim=4, kv_heads=3)", vocab_size=9, d_model=8)
