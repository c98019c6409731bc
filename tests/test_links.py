"""Links between layers, wherever layers are not simply called one after the other."""

import copy
import types

import pytest
import torch

import runnel
from runnel import native, patterns
from runnel.drafters import hidden_transfer, nested
from runnel.model import layers_of
from runnel.probe import layer_maps
from runnel.train import sharding
from runnel.train.over_time import backward
from runnel.trained.stack import digits, from_digits, sliced
from runnel.types import Batch

PATTERN = "(rwkv7, zamba2 > mamba2, rwkv7 & zamba2, gla, yoco > short_conv, yoco)"
CARRIED = "(rwkv7, gla, zamba2 > mamba2, rwkv7, mamba2)"


def tokens(rows, length, seed=0):
    return torch.randint(0, 11, (rows, length), generator=torch.Generator().manual_seed(seed))


def make(pattern=PATTERN, **frame):
    model = runnel.build(pattern, vocab_size=11, d_model=8, frame=frame or None)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator), alpha=0.1)
    return model


def gradients(model):
    return [torch.zeros(()) if p.grad is None else p.grad for p in model.parameters()]


def test_recomputed_layers_have_the_same_gradients():
    plain = make().double()
    again = copy.deepcopy(plain)
    sharding.recompute(again)
    for model in (plain, again):
        model(tokens(2, 9))[0].pow(2).sum().backward()
    for wanted, found in zip(gradients(plain), gradients(again), strict=True):
        torch.testing.assert_close(found, wanted, rtol=0, atol=1e-12)


def test_chunks_of_time_have_the_same_gradients():
    model, text = make().double(), tokens(2, 21)
    batch = Batch(text[:, :-1], text[:, 1:], torch.zeros(2, 20, dtype=torch.long))
    logits, _ = model(batch.inputs, lineage=batch.lineage)
    (-model.head.log_prob(logits, batch.targets).sum()).backward()
    wanted = gradients(model)
    model.zero_grad()
    backward(model, batch, 7, 1.0)
    for whole, found in zip(wanted, gradients(model), strict=True):
        torch.testing.assert_close(found, whole, rtol=0, atol=1e-11)


def test_layers_that_share_weights_are_not_sharded():
    with pytest.raises(ValueError, match=r"layers share weights cannot be sharded; got 'zamba2\*2'"):
        sharding.shard(make("zamba2*2"), types.SimpleNamespace())


@pytest.mark.parametrize("cuts", [[1], [2, 3], [1, 2, 3, 4]])
def test_stacks_of_layers_hand_links_over_with_their_vectors(cuts):
    model = make(CARRIED).double()
    x = model.embed(tokens(2, 7))
    for stack in sliced(list(model.layers), cuts, model.norm, 8):
        x, _ = stack(x)
    torch.testing.assert_close(x, model.features(tokens(2, 7))[0], rtol=0, atol=1e-12)


@pytest.mark.parametrize("cuts", [[1], [2], [1, 2]])
def test_stacks_hand_the_tokens_themselves_over(cuts):
    model = make("gla, mixture_of_transformers(first=[3])+none, mixture_of_transformers(first=[5])+none").double()
    ids = tokens(2, 7)
    stacks = sliced(list(model.layers), cuts, model.norm, 8, model.embed)
    x = stacks[0].embedded(model.embed(ids), ids)
    for stack in stacks:
        x, _ = stack(x)
    torch.testing.assert_close(x, model.features(ids)[0], rtol=0, atol=1e-12)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_carried_tokens_are_exact(dtype):
    ids = torch.tensor([0, 1, 127, 128, 129, 255, 257, 50_256, 151_935, 2**28 - 1])
    assert torch.equal(from_digits(digits(ids).to(dtype)), ids)


def test_a_memory_cannot_be_handed_over():
    layers = layers_of(patterns.parse("gla, yoco*2", None), 8)
    assert len(sliced(layers, [1], torch.nn.Identity(), 8)) == 2
    with pytest.raises(ValueError, match="layers cannot be cut apart at 2: layer 2 takes 'keys_values'"):
        sliced(layers, [2], torch.nn.Identity(), 8)


@pytest.mark.parametrize("drafter", ["nested", "hidden_transfer"])
def test_drafters_made_of_the_target_s_layers(drafter):
    """Exits in the middle and pseudo vectors: the text is that of plain decoding, and drafts come."""
    model = make(CARRIED)
    made = {
        "nested": lambda: nested.Nested(nested.Config(model, exits=(1, 2, 4))),
        "hidden_transfer": lambda: hidden_transfer.HiddenTransfer(hidden_transfer.Config(model)),
    }[drafter]()
    prompt = tokens(1, 9)[0].tolist()
    plain = runnel.generate(model, [prompt], max_new_tokens=12, decoder="greedy")
    drafted = runnel.generate(model, [prompt], max_new_tokens=12, decoder="greedy", drafter=made)
    assert drafted.tokens == plain.tokens and drafted.stats["drafted"] > 0


def test_maps_of_linked_layers():
    maps = list(layer_maps(make(), tokens(1, 6)[0]))
    assert [found.mixer for found in maps][:3] == ["rwkv7", "zamba2 & mamba2", "rwkv7 & zamba2"]
    for found in maps:
        torch.testing.assert_close(found.weights.sum(-1), torch.ones(6, dtype=found.weights.dtype))
        assert float(found.weights.triu(1).abs().max()) == 0


@pytest.mark.skipif(not native.available(), reason="the extension was not built")
@pytest.mark.parametrize("norm", [False, True])
def test_links_in_and_around_native_parts(norm, tmp_path):
    """A layer without a native form takes the native form from the links that pass it, and from no others."""
    model = make("(rwkv7, rwkv7, yoco, zamba2 > mamba2, mamba2)", embedding_norm=norm)
    packed = runnel.pack(model, weights="f32")
    named = {"layer 2": "the link 'keys_values', which is no vector of each token"}
    passing = "the link 'embedding' passes a layer without a native form"
    assert packed.fallbacks == named | {"layer 3": passing} | ({"layer 0": passing} if norm else {}) | (
        {"layer 1": "the link 'value' passes a layer without a native form"} if norm else {}
    )
    ids = tokens(2, 9)
    with torch.no_grad():
        wanted, state = model(ids)
        found, after = packed(ids)
        torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-5)
        tree = runnel.DraftTree([5, 7, 1, 3], [-1, 0, 0, 2], [0, 0, 0, 0])
        torch.testing.assert_close(
            packed.verify(after, tree).logits, model.verify(state, tree).logits, rtol=1e-4, atol=1e-5
        )
    runnel.save_packed(packed, tmp_path)
    assert torch.equal(runnel.load_packed(tmp_path)(ids)[0], found)
