"""What window models share equals its formulas."""

import pytest
import torch

from runnel.mixers.mamba import Config, Mamba
from runnel.windows import Window
from runnel.windows.layers import BatchNorm, BothWays, GatedMixer, WholeAttention, patch_count, patched, run, variates


def test_attention_equals_the_loop():
    torch.manual_seed(0)
    attention, x = WholeAttention(8, 2).double(), torch.randn(2, 5, 8, dtype=torch.float64)
    expected = torch.stack([attention.reference(row) for row in x])
    assert (attention(x) - expected).abs().max() < 1e-9
    with pytest.raises(ValueError, match="heads must divide d_model; got 3 heads, d_model 8"):
        WholeAttention(8, 3)


def test_attention_to_another_sequence_reads_all_of_it():
    torch.manual_seed(0)
    attention, x, other = WholeAttention(8, 2), torch.randn(1, 3, 8), torch.randn(1, 5, 8)
    changed = other.clone()
    changed[0, 4] += 1
    assert attention(x, other).shape == x.shape
    assert ((attention(x, other) - attention(x, changed)).abs().amax(-1) > 1e-6).all()


def test_batch_norm_is_over_all_tokens():
    x = torch.randn(4, 5, 3, dtype=torch.float64) * 3 + 1
    y = BatchNorm(3).double()(x).flatten(0, 1)
    assert y.mean(0).abs().max() < 1e-9 and (y.var(0, unbiased=False) - 1).abs().max() < 1e-4


def test_both_ways_turns_with_its_tokens_when_the_two_are_alike():
    torch.manual_seed(0)
    both, x = BothWays(lambda: Mamba(8, Config(d_state=4))).double(), torch.randn(2, 6, 8, dtype=torch.float64)
    assert not torch.allclose(both(x.flip(1)).flip(1), both(x))
    both.back.load_state_dict(both.there.state_dict())
    assert torch.allclose(both(x.flip(1)).flip(1), both(x), atol=1e-12)
    assert torch.allclose(both(x)[:, -1], run(both.there, x)[:, -1] + run(both.back, x[:, -1:])[:, 0])


@pytest.mark.parametrize("axis", [-1, 1])
def test_gated_mixer_mixes_one_axis_only(axis):
    torch.manual_seed(0)
    x = torch.randn(2, 5, 4, dtype=torch.float64)
    layer = GatedMixer(axis, x.shape[axis], 4, expand=2, dropout=0.0).double()
    z = layer.norm(x).transpose(axis, -1)
    z = layer.down(torch.nn.functional.gelu(layer.up(z)))
    expected = x + (z * layer.gate(z).softmax(-1)).transpose(axis, -1)
    assert (layer(x) - expected).abs().max() < 1e-12
    moved = x.clone()
    moved[:, 0, :] += torch.randn(4)
    others = (layer(moved) - layer(x))[:, 1:].abs().max()
    assert (others > 1e-6) == (axis == 1)


@pytest.mark.parametrize("length, patch, stride", [(15, 6, 4), (6, 6, 4), (4, 6, 4), (16, 4, 4), (1, 3, 1)])
def test_patches_end_with_the_newest_row(length, patch, stride):
    x = torch.arange(float(length))[None]
    found = patched(x, patch, stride)[0]
    ends = [length - 1 - stride * (len(found) - 1 - i) for i in range(len(found))]
    assert len(found) == patch_count(length, patch, stride) and ends[0] - patch < max(1, stride)
    for end, row in zip(ends, found, strict=True):
        assert row.tolist() == [max(0, end - patch + 1 + i) for i in range(patch)]


def test_variates_are_channels_and_covariates_up_to_now():
    window = Window(torch.zeros(1, 3, 2), past=torch.ones(1, 3, 1), future=torch.arange(5.0)[None, :, None])
    assert variates(window).tolist() == [[[0, 0, 0], [0, 0, 0], [1, 1, 1], [0, 1, 2]]]
    assert variates(Window(window.history)).shape == (1, 2, 3)
