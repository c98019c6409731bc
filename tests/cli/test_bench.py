"""`runnel bench` measures what it says."""

import json

import pytest

from tests.cli.conftest import examples


def test_the_example_measures_every_drafter(demo, in_process):
    line, _ = examples("bench")
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


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["decoding", "runs/demo"], "bench measures decode, forecast; got 'decoding'"),
        (["decode", "runs/none"], "runs/none must be the folder of a trained model"),
        (["decode", "runs/demo", "--repeats", 0], "must be at least 1; got 256 and 0"),
        (["decode", "runs/demo", "--drafter", "sufix"], "did you mean 'suffix'?"),
    ],
)
def test_what_cannot_be_measured_is_said(demo, in_process, arguments, said):
    code, _, error = in_process(["bench", *arguments], demo[0])
    assert code == 2
    assert said in error
