"""`runnel bench` measures what it says."""

import json

import pytest

from runnel import native
from tests.cli.conftest import examples


def test_the_example_measures_every_drafter(demo, in_process):
    line, *_ = examples("bench")
    arguments = [*line.split()[1:], "--threads", 1, "--tokens", 6, "--repeats", 1]
    code, out, _ = in_process(arguments, demo[0])
    assert code == 0
    assert all(word in out for word in ("free text", "code completion", "copy-heavy editing", "plain", "auto", "v(8)"))
    assert "differs" not in out


def test_numbers_for_machines_and_a_drafter_of_ones_own(demo, in_process):
    arguments = ["bench", "decode", "runs/demo", "--tokens", 5, "--repeats", 1, "--threads", 1, "--json"]
    found = json.loads(in_process([*arguments, "--drafter", "suffix(max_draft=3)"], demo[0])[1])
    assert {line["drafter"] for line in found["lines"]} == {"plain", "suffix(max_draft=3)"}
    assert set(found["verify"]) == {"1", "2", "4", "8", "16"}


@pytest.mark.skipif(not native.available(), reason="the extension was not built")
def test_the_engine_is_measured(demo, in_process):
    found = json.loads(in_process(["bench", "length", "--quick", "--threads", 1, "--json"], demo[0])[1])
    assert [mixer["mixer"] for mixer in found["mixers"]] == ["mamba", "attention"]
    assert set(found["mixers"][0]["ratio_to_shortest"]) == {"256", "1024"}
    code, out, _ = in_process(["bench", "length", "--quick", "--threads", 1], demo[0])
    assert code == 0 and "| mamba | 1.0 |" in out


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["decoding", "runs/demo"], "bench measures decode, verify, prefill, train, length, forecast; got 'decoding'"),
        (["verify", "runs/demo"], "bench verify measures the shapes mamba-130m, llama-135m; got 'runs/demo'"),
        (["decode"], "bench decode needs the folder of a trained model, or a shape; got nothing"),
        (["train", "--repeats", 0], "--repeats must be at least 1; got 0"),
        (["decode", "runs/none"], "runs/none must be the folder of a trained model"),
        (["decode", "runs/demo", "--repeats", 0], "must be at least 1; got 256 and 0"),
        (["decode", "runs/demo", "--drafter", "sufix"], "did you mean 'suffix'?"),
    ],
)
def test_what_cannot_be_measured_is_said(demo, in_process, arguments, said):
    code, _, error = in_process(["bench", *arguments], demo[0])
    assert code == 2
    assert said in error
