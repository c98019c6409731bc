import pytest
import torch

import runnel
from runnel import native

PATTERN = "(gla, gold(compression=4)*3)"


def text(length=20, seed=0):
    return torch.randint(0, 7, (1, length), generator=torch.Generator().manual_seed(seed))


def model(pattern=PATTERN, **options):
    made = runnel.build(pattern, vocab_size=7, d_model=16, **options)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator), alpha=0.2)
    return made


def growth(pattern):
    """Bytes that a token adds to the state."""
    made = model(pattern)
    return (made(text(20))[1].nbytes - made(text(10))[1].nbytes) / 10


def test_a_token_adds_a_small_key_itself_and_its_place_whatever_the_number_of_layers():
    assert growth("gold(compression=4)") == growth("gold(compression=4)*5") == 4 * 4 + 8 + 8
    assert growth("gold(compression=16)*5") == 4 + 8 + 8 < growth("attention") / 5


def test_values_are_the_tokens_and_keys_what_the_layer_below_made_of_them():
    """Without the compressed key, what is below the first layer is seen by queries alone."""
    made, x = model("(gla+none, gold+none)").double(), text()
    seen = []
    made.mixers[1].register_forward_hook(lambda _, __, out: seen.append(out[2]["gold"]))
    with torch.no_grad():
        made(x)
        made.mixers[0].out.weight.mul_(2)
        made(x)
        made.mixers[1].down.weight.zero_()
        made(x)
        made.mixers[0].out.weight.mul_(2)
        made(x)
    keys, vectors = zip(*[cache.own.chunk(2, dim=-1) for cache in seen], strict=True)
    assert torch.equal(vectors[0], vectors[1]) and not torch.allclose(keys[0], keys[1])
    assert torch.equal(keys[2], keys[3])


def test_mixtures_of_one_token_are_that_token():
    made, x = model().double(), text()
    one_hot = torch.nn.functional.one_hot(x, 7).double()
    torch.testing.assert_close(made(one_hot)[0], made(x)[0], rtol=1e-9, atol=1e-9)


@pytest.mark.skipif(not native.available(), reason="the extension was not built")
def test_by_the_native_engine_it_runs_in_torch():
    made = model("(mamba2, gold*2)", frame={"embedding_norm": True})
    packed = runnel.pack(made, "f32")
    assert "'tokens'" in packed.fallbacks["layer 1"]
    (whole, state), (wanted, after) = packed(text()), made(text())
    torch.testing.assert_close(whole, wanted, rtol=1e-4, atol=1e-5)
    tree = runnel.DraftTree([5, 6, 1, 3], [-1, 0, 0, 2], [0, 0, 0, 0])
    found, expected = packed.verify(state, tree).logits, made.verify(after, tree).logits
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


def test_what_cannot_be():
    with pytest.raises(ValueError, match="layer 0 takes the link 'tokens'; given are embedding"):
        runnel.build("gold", value_dim=2, d_model=8)
    with pytest.raises(ValueError, match=r">= 1; got .*compression=0"):
        model("gold(compression=0)")
