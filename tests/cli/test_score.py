"""Texts are scored as the library scores them."""

import json
import math

import pytest

import runnel as library
from runnel import codecs
from tests.cli.conftest import examples, shell

TEXT = "def main():\n    return 1\n"


def test_the_example_runs_as_printed(demo):
    (line,) = examples("score")
    result = shell(line, demo[0])
    assert result.returncode == 0, result.stderr
    assert "bits per byte" in result.stdout


def test_log_probabilities_are_those_of_the_model(demo, in_process):
    code, out, _ = in_process(["score", "runs/demo", "--text", TEXT, "--json", "--threads", 1], demo[0])
    found = json.loads(out)
    run = demo[0] / "runs" / "demo"
    expected = library.score(library.load(run).eval(), [codecs.load(run).encode(TEXT)]).logprobs[0]
    assert code == 0
    assert found["logprobs"][0] is None
    assert found["logprobs"][1:] == pytest.approx(expected, abs=1e-4)
    assert found["bits_per_byte"] == pytest.approx(-sum(expected) / math.log(2) / (len(TEXT) - 1), abs=1e-4)


def test_a_table_has_a_line_for_every_token_but_the_first(demo, in_process):
    _, out, _ = in_process(["score", "runs/demo", "--text", TEXT, "--tokens", "--threads", 1], demo[0])
    assert out.count("\n") == len(TEXT) - 1 + 1


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "give one of --text and --file"),
        (["--text", "a", "--file", "b"], "give one of --text and --file"),
        (["--text", "a"], "at least two tokens; got 1"),
        (["--file", "nowhere.txt"], "nowhere.txt"),
    ],
)
def test_what_cannot_be_scored_is_said(demo, in_process, arguments, said):
    code, _, error = in_process(["score", "runs/demo", *arguments], demo[0])
    assert code == 2
    assert said in error
