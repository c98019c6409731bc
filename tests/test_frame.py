"""Frames: what stands around the parts of a model, and that the default one changes nothing."""

import pytest
import torch

import runnel
from runnel import Lineage
from runnel.frame import Frame

SMALL = {"vocab_size": 11, "d_model": 8, "n_layers": 2}
TOKENS = torch.tensor([[1, 2, 3, 4, 5]])


def built(**frame):
    return runnel.build("attention", **SMALL, frame=Frame(**frame)).double()


def test_the_default_frame_is_not_written_down():
    assert "frame" not in runnel.build("attention", **SMALL).config.to_dict()
    assert built(tied=True).config.to_dict()["frame"]["tied"]


@pytest.mark.parametrize("place", ["before", "around", "after", "through"])
def test_where_the_norms_stand(place):
    model = built(place=place, norm="rms(eps=1e-3)", residual=0.5, carried=0.7)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    lineage, x = Lineage.sequence(1, 5), model.embed(TOKENS)
    for layer in model.layers:
        for part in ("mixer", "block"):
            norm, after = getattr(layer, f"{part}_norm"), getattr(layer, f"{part}_norm_after", None)
            given = x if place == "after" else norm(x)
            y = layer.mixer(given, layer.mixer.init_state(1), lineage)[0] if part == "mixer" else layer.block(given)
            y = {"before": lambda y: y, "around": after, "after": norm, "through": lambda y: y}[place](y)
            x = 0.7 * (given if place == "through" else x) + 0.5 * y
    torch.testing.assert_close(model.features(TOKENS)[0], model.norm(x), rtol=1e-12, atol=1e-12)


def test_a_tied_model_has_one_matrix_which_files_hold_once(tmp_path):
    model = built(tied=True, embedding=8**0.5)
    assert model.head.logits.weight is model.embed.weight
    runnel.save(model, tmp_path)
    loaded = runnel.load(tmp_path)
    assert loaded.head.logits.weight is loaded.embed.weight and loaded.fingerprint() == model.fingerprint()
    assert torch.equal(loaded(TOKENS)[0], model(TOKENS)[0])
    mixture = torch.nn.functional.one_hot(TOKENS, 11).double()
    torch.testing.assert_close(model(mixture)[0], model(TOKENS)[0])


def test_only_logits_can_be_tied():
    with pytest.raises(ValueError, match="only a head of logits over tokens"):
        runnel.build("attention", value_dim=3, d_model=8, frame=Frame(tied=True))


def test_learned_positions_end(tmp_path):
    model = built(positions=5)
    _, state = model(TOKENS)
    with pytest.raises(ValueError, match="5 positions; got a text of 6 tokens"):
        model(TOKENS[:, :1], state)
    valid = torch.tensor([[True] * 5 + [False]])  # padding has no position
    padded, _ = model(torch.cat([TOKENS, TOKENS[:, :1]], dim=1), lineage=Lineage.padded(valid))
    torch.testing.assert_close(padded[:, :5], model(TOKENS)[0])


def test_files_keep_every_tensor_in_its_own_dtype(tmp_path):
    model = runnel.build("mamba", **SMALL, channel=None).bfloat16()
    for layer in model.layers:
        layer.mixer.log_a.data = layer.mixer.log_a.data.float()
    runnel.save(model, tmp_path)
    assert runnel.load(tmp_path).fingerprint() == model.fingerprint()


def test_mistakes():
    with pytest.raises(ValueError, match="place of a norm must be one of before, around, after, through; got 'inside'"):
        Frame(place="inside")
    with pytest.raises(ValueError, match="no norm is called 'rmss'; did you mean 'rms'"):
        built(norm="rmss")
