"""Maps of all layers of a model: shares of a token's reading, in numbers, as JSON and as a picture."""

import json

import pytest
import torch

import runnel
from runnel import probe, train
from runnel.codecs.bytes import Bytes
from runnel.data import open_source
from tests.cli.conftest import in_process

__all__ = ["in_process"]


def test_shares_are_causal_and_sum_to_one():
    model = runnel.build("mamba2, attention(window=2), gru", vocab_size=7, d_model=8)
    maps = list(probe.layer_maps(model, torch.arange(6)))
    assert [(found.layer, found.mixer) for found in maps] == [(0, "mamba2"), (1, "attention"), (2, "gru")]
    assert maps[2].primitive is None
    for found in maps:
        assert found.weights.triu(1).abs().max() == 0
        assert found.weights.sum(-1).tolist() == pytest.approx([1.0] * 6)
        assert 0 < found.to_itself <= 1
    assert maps[1].weights.tril(-2).abs().max() == 0, "a window of two reads no further"
    assert maps[1].reach <= 1


def test_reach_and_share_by_hand():
    weights = torch.tensor([[1.0, 0.0, 0.0], [0.5, 0.5, 0.0], [1.0, 0.0, 0.0]])
    found = probe.LayerMap(0, "attention", "attend", weights)
    assert found.to_itself == pytest.approx(0.5)
    assert found.reach == pytest.approx((0 + 0.5 + 2) / 3)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    made = tmp_path_factory.mktemp("probe")
    (made / "text.txt").write_text("the state of a model is a plain value; " * 20)
    source = open_source(made / "text.txt", Bytes(), length=16, batch_size=2)
    model = runnel.build("gla, attention", vocab_size=256, d_model=16)
    train.fit(model, source, made / "run", train.TrainConfig(steps=2))
    return made


def test_the_command_prints_a_table_and_draws(folder, in_process):
    code, out, _ = in_process(["probe", "run", "the state"], folder)
    assert code == 0
    assert "exact, of outer_scan" in out
    assert (folder / "probe.png").read_bytes().startswith(b"\x89PNG")
    code, out, _ = in_process(["probe", "run", "the state", "--json"], folder)
    found = json.loads(out)
    assert found["tokens"] == list(b"the state")
    assert [len(layer["weights"]) for layer in found["layers"]] == [9, 9]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [(["nowhere", "ab"], "nowhere"), (["run", "a"], "2 to 128 tokens long; got 1"), (["run", "a" * 200], "got 200")],
)
def test_mistakes_are_one_line_and_exit_code_2(folder, in_process, arguments, said):
    code, out, error = in_process(["probe", *arguments], folder)
    assert (code, out) == (2, "")
    assert said in error.splitlines()[-1]
