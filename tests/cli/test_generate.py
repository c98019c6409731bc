"""Text from a trained model: streamed, resumed from a state, the same whatever the drafter."""

import io
import json
import sys

import pytest
import torch

import runnel as library
from runnel import codecs, native
from runnel.cli import _screen
from runnel.cli import generate as page
from runnel.drafters import draft_model
from runnel.state import State
from tests.cli.conftest import examples, runnel, shell

PLAIN = ("--prompt", "def main(", "--seed", 3, "--threads", 1)


@pytest.mark.parametrize("number", [0, 1, 2])
def test_examples_run_as_printed(demo, number):
    lines = examples("generate")
    assert len(lines) == 3
    result = shell(lines[number], demo[0])
    assert result.returncode == 0, result.stderr
    assert result.stdout


def test_a_saved_state_goes_on_with_the_same_text(demo, in_process, tmp_path):
    saved = tmp_path / "a.state"
    rest = ("--seed", 3, "--threads", 1, "--max-tokens", 35)
    runs = (
        in_process(["generate", "runs/demo", *PLAIN, "--max-tokens", 60, "--json"], demo[0]),
        in_process(["generate", "runs/demo", *PLAIN, "--max-tokens", 25, "--json", "--save-state", saved], demo[0]),
        in_process(["generate", "runs/demo", "--state", saved, *rest, "--json"], demo[0]),
    )
    whole, first, second = [json.loads(out)["samples"][0] for _, out, _ in runs]
    assert len(whole["tokens"]) == 60
    assert whole["tokens"] == first["tokens"] + second["tokens"]
    assert whole["logprobs"] == pytest.approx(first["logprobs"] + second["logprobs"], abs=1e-3)


def test_a_drafter_does_not_change_the_text(demo, in_process):
    arguments = ["generate", "runs/demo", *PLAIN, "--max-tokens", 60, "--temperature", 0]
    plain = in_process(arguments, demo[0])
    drafted = in_process([*arguments, "--drafter", "runs/demo", "--stats"], demo[0])
    assert plain[0] == drafted[0] == 0
    assert plain[1] == drafted[1]
    assert "drafted tokens accepted" in drafted[2]


def test_several_texts_differ_and_the_first_is_the_single_one(demo, in_process):
    arguments = ["generate", "runs/demo", *PLAIN, "--max-tokens", 20, "--json"]
    single, three = in_process(arguments, demo[0])[1], in_process([*arguments, "--n", 3], demo[0])[1]
    texts = [tuple(sample["tokens"]) for sample in json.loads(three)["samples"]]
    assert len(set(texts)) == 3
    assert list(texts[0]) == json.loads(single)["samples"][0]["tokens"]


def test_prompt_from_stdin_is_the_prompt_as_an_argument(demo, in_process):
    rest = ("--max-tokens", 20, "--threads", 1, "--json")
    piped = runnel("generate", "runs/demo", "--prompt-file", "-", *rest, cwd=demo[0], stdin="import")
    assert piped.returncode == 0, piped.stderr
    _, given, _ = in_process(["generate", "runs/demo", "--prompt", "import", *rest], demo[0])
    assert json.loads(piped.stdout)["samples"] == json.loads(given)["samples"]


PENALTIES = ["--processor", "repetition_penalty", "--processor", "presence_penalty(penalty=-1.0)"]
EMPTY = "json_schema(schema={'type': 'integer', 'minimum': 5, 'maximum': 3})"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["runs/none"], "runs/none must be the folder of a trained model"),
        (["runs/demo", "--decoder", "greedyy"], "did you mean 'greedy'?"),
        (["runs/demo", "--prompt", ""], "at least one character"),
        (["runs/demo", "--prompt", "a", "--prompt-file", "b"], "give one of --prompt and --prompt-file"),
        (["runs/demo", "--prompt-file", "nowhere.txt"], "nowhere.txt"),
        (["runs/demo", "--state", "runs/demo/config.json"], "config.json is damaged or is not a safetensors file"),
        (["runs/demo", "--state", "bare.state"], "give a --prompt"),
        (["runs/demo", "--decoder", "beam(width=3)", "--drafter", "suffix"], "give no drafter"),
        (["runs/demo", "--drafter", "suffix(max_daft=3)"], "did you mean 'max_draft'?"),
        (["runs/demo", "--processor", "mirostat", "--decoder", "greedy"], "has no option 'processors'"),
        (["runs/demo", "--decoder", "beam(width=300)", "--max-tokens", "1"], "at most the 256 texts of 1 of the 256"),
        (["runs/demo", *PENALTIES], "penalties must not contradict each other; repetition_penalty makes"),
        (["runs/demo", "--eos", "10", "--processor", EMPTY], "json_schema cannot be followed: Unsatisfiable schema"),
        (["runs/demo", "--top-p", "3"], "top_p must lie in (0, 1]; got 3.0"),
        (["runs/demo", "--max-tokens", "many"], "--max-tokens"),
        (["runs/demo", "--threads", "0"], "--threads must be at least 1"),
        (["runs/demo", "--drafter", "draft_model"], "--drafter runs/SMALLER"),
        (["runs/demo", "--n", "2", "--save-state", "x"], "--n must be"),
    ],
)
def test_mistakes_are_one_line_and_exit_code_2(demo, in_process, arguments, said):
    if "bare.state" in arguments:
        model = library.load(demo[0] / "runs/demo")
        model(torch.zeros(1, 3, dtype=torch.long))[1].save(demo[0] / "bare.state")
        assert State.load(demo[0] / "bare.state", model).lengths.tolist() == [3]
    code, out, error = in_process(["generate", *arguments], demo[0])
    assert (code, out) == (2, "")
    assert said in error
    assert error.count("\n") == 1


def test_a_closed_pipe_ends_quietly(demo):
    line = "runnel generate runs/demo --max-tokens 4000 | head -c 5 >/dev/null; echo ${PIPESTATUS[0]}"
    result = shell(line, demo[0])
    assert result.stdout.endswith("141\n")
    assert result.stderr == ""


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_drafted_tokens_are_green_on_a_terminal_and_the_prompt_is_dim(demo, monkeypatch):
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setattr("sys.stdout", Terminal())
    path = demo[0] / "runs/demo"
    model, codec = page.load_run(path), codecs.load(path)
    written = page.stream(
        model,
        codec,
        codec.encode("ab"),
        _screen.TextOut(),
        max_new_tokens=9,
        temperature=0,
        drafter=draft_model.Config(model),
    )
    assert written.stats["accepted"] > 0
    assert sys.stdout.getvalue().startswith("\x1b[2mab\x1b[0m")
    assert "\x1b[32m" in sys.stdout.getvalue()


def test_control_characters_are_spelled_out_for_a_terminal():
    assert _screen.printable("a\tb\n\x1b[2J\x07é") == "a\tb\n\\x1b[2J\\x07é"


def test_options_of_methods_are_written_beside_their_names(demo, in_process):
    prompt = ("--prompt", "abcabcabcabc", "--seed", 3, "--threads", 1)
    base = ["generate", "runs/demo", *prompt, "--max-tokens", 30, "--json"]
    plain = json.loads(in_process(base, demo[0])[1])
    drafted = in_process(
        [*base, "--drafter", "suffix(min_match=1, max_draft=3)", "--length", "fixed(max_draft=2)"], demo[0]
    )
    assert json.loads(drafted[1])["samples"][0]["tokens"] == plain["samples"][0]["tokens"]
    assert json.loads(drafted[1])["stats"]["drafted"] > 0
    penalised = in_process([*base, "--processor", "repetition_penalty(penalty=5.0)", "--top-logprobs", 2], demo[0])
    sample = json.loads(penalised[1])["samples"][0]
    assert sample["tokens"] != plain["samples"][0]["tokens"]
    assert all(len(top) == 2 for top in sample["top_logprobs"])


def test_a_stop_string_ends_the_text_before_it(demo, in_process):
    base = ["generate", "runs/demo", *PLAIN, "--max-tokens", 60]
    whole = in_process(base, demo[0])[1]
    stop = whole[20:23]
    code, out, _ = in_process([*base, "--stop", stop], demo[0])
    assert code == 0
    assert out == whole[: whole.index(stop)] + "\n"
    assert json.loads(in_process([*base, "--stop", stop, "--json"], demo[0])[1])["samples"][0]["ended"] == "stop"


def test_a_search_prints_its_best_texts_with_their_scores(demo, in_process):
    arguments = ["generate", "runs/demo", *PLAIN[:2], "--decoder", "beam(width=4)", "--n", 2, "--max-tokens", 8]
    samples = json.loads(in_process([*arguments, "--json"], demo[0])[1])["samples"]
    assert samples[0]["score"] > samples[1]["score"]
    assert in_process(arguments, demo[0])[1].count("(score ") == 2


def test_the_native_engine_writes_the_same_text_from_the_same_state(demo, in_process):
    if not native.available():
        pytest.skip("the native extension is not built")
    base = ["generate", "runs/demo", *PLAIN, "--max-tokens", 40, "--temperature", 0, "--json"]
    plain, packed = [json.loads(in_process([*base, *more], demo[0])[1]) for more in ((), ("--weights", "f32"))]
    assert packed["samples"][0]["tokens"] == plain["samples"][0]["tokens"]
