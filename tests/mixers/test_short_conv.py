import pytest
import torch

from .support import close, mixer, normal, run


def test_is_a_gated_depthwise_convolution_of_torch():
    made, x = mixer("short_conv", bias=True), normal(2, 30, 8)
    layer = torch.nn.Conv1d(8, 8, 3, groups=8, padding=2).double()
    with torch.no_grad():
        made.conv_bias.copy_(normal(8, seed=1))
        layer.weight.copy_(made.conv_weight[:, None])
        layer.bias.copy_(made.conv_bias)
    b, c, value = made.input(x).chunk(3, dim=-1)
    y = layer((b * value).mT)[..., :30].mT
    close(run(made, x), made.out(c * y))


def test_its_memory_is_two_tokens():
    made, x = mixer("short_conv"), normal(1, 12, 8)
    other = x.clone()
    other[:, :9] += 1
    close(run(made, x)[:, 11:], run(made, other)[:, 11:])
    assert not torch.allclose(run(made, x)[:, 10], run(made, other)[:, 10])


def test_no_taps():
    with pytest.raises(ValueError, match="short_conv needs width >= 1; got 0"):
        mixer("short_conv", width=0)
