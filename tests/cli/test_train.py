"""`runnel train`: the example, resuming after Ctrl-C, codecs, and mistakes."""

import json
import math
import shlex
import signal
import subprocess
import time

import pytest

import runnel as library
from runnel import drafters
from runnel.cli import train as page
from tests.cli.conftest import PROGRAM, environment, examples, runnel, shell

SMALL = ("--model", "mingru", "--d-model", 16, "--length", 32, "--batch", 4, "--threads", 1)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with a text."""
    made = tmp_path_factory.mktemp("train")
    (made / "text.txt").write_text("the state of a model is a plain value; " * 100)
    return made


def test_example_runs_as_printed_and_ends_with_the_loss_beside_baselines(tmp_path):
    result = shell(" && ".join(examples("train")), tmp_path)
    assert result.returncode == 0, result.stderr
    assert "\x1b" not in result.stdout + result.stderr
    last = next(line for line in result.stdout.splitlines() if line.startswith("validation "))
    for part in (" bits per byte", "unigram", "order-3 n-gram", "order-5 n-gram"):
        assert part in last
    target = library.load(tmp_path / "runs/zen")
    assert target.config.pattern == "mamba2*2"
    assert result.stdout.splitlines()[-1].startswith("held-out text: ")
    assert drafters.load(tmp_path / "runs/hydra", target).config.heads == 4
    calibrated = shell(" && ".join(examples("calibrate")), tmp_path)
    assert calibrated.returncode == 0, calibrated.stderr
    assert "drafted tokens accepted" in calibrated.stderr


def test_ctrl_c_says_how_to_go_on_and_the_same_command_does(folder, in_process):
    command = [*map(str, ("train", "text.txt", *SMALL, "--steps", 250, "--out", "cut", "--json"))]
    process = subprocess.Popen(
        [str(PROGRAM), *command],
        cwd=folder,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    wait_for_steps(folder / "cut/metrics.jsonl", process)
    process.send_signal(signal.SIGINT)
    out, error = process.communicate(timeout=60)
    assert process.returncode == 130, error
    assert out == ""
    last = error.splitlines()[-1]
    assert last.startswith("runnel: stopped at step ")
    assert "the same command again goes on" in last
    assert "Traceback" not in error

    resumed = runnel(*command, cwd=folder)
    assert resumed.returncode == 0, resumed.stderr
    assert "going on from step " in resumed.stderr
    whole = in_process([*command[:-2], "whole", "--json"], folder)
    assert weights(folder / "cut") == weights(folder / "whole")
    results = [json.loads(out) for out in (resumed.stdout, whole[1])]
    assert results[0]["valid_bits_per_byte"] == results[1]["valid_bits_per_byte"]
    assert results[0]["baselines"].keys() == {"unigram", "order-3 n-gram", "order-5 n-gram"}


def test_a_learned_tokenizer_is_kept_over_a_restart(folder, in_process):
    arguments = ("train", "text.txt", *SMALL, "--codec", "bpe", "--vocab-size", 280, "--steps", 5, "--json")
    first = in_process([*arguments, "--out", "bpe"], folder)
    again = in_process([*arguments, "--out", "bpe"], folder)
    assert first[0] == again[0] == 0
    assert "learning a tokenizer" in first[2]
    assert "learning a tokenizer" not in again[2]
    assert json.loads(first[1])["valid_bits_per_byte"] == json.loads(again[1])["valid_bits_per_byte"]
    given = ("--codec", "bpe", "--tokenizer", "bpe/tokenizer.json", "--steps", 5, "--json", "--out", "given")
    other = in_process(["train", "text.txt", *SMALL, *given], folder)
    assert json.loads(other[1])["valid_bits_per_byte"] == json.loads(first[1])["valid_bits_per_byte"]


def test_every_knob_reaches_the_run(folder):
    knobs = (
        *("--optimizer", "muon", "--schedule", "wsd", "--bf16", "--ema", 0.9, "--patience", 9, "--valid-every", 2),
        *("--accumulate", 2, "--clip", 0.5, "--warmup", 0.1, "--cooldown", 0.3, "--weight-decay", 0.2, "--lr", 0.001),
        *("--seed", 5, "--save-every", "0s", "--channel", "none", "--layers", 2, "--valid-fraction", 0.2),
    )
    result = runnel("train", "-", *SMALL, *knobs, "--steps", 3, "--out", "knobs", cwd=folder, stdin="abcdef\n" * 99)
    assert result.returncode == 0, result.stderr
    newest = folder / "knobs/checkpoints" / (folder / "knobs/checkpoints/latest").read_text().strip()
    run = json.loads((newest / "checkpoint.json").read_text())["facts"]["run"]
    wanted = {
        "optimizer": "muon",
        "schedule": "wsd",
        "precision": "bfloat16",
        "ema": 0.9,
        "patience": 9,
        "valid_every": 2,
        "accumulate": 2,
        "clip": 0.5,
        "warmup": 0.1,
        "cooldown": 0.3,
        "weight_decay": 0.2,
        "lr": 0.001,
        "seed": 5,
        "steps": 3,
    }
    assert run["train"].items() >= wanted.items()
    assert run["model"].items() >= {"channel": None, "n_layers": 2, "seed": 5, "d_model": 16}.items()
    assert (run["data"]["train_tokens"], run["data"]["valid_tokens"]) == (554, 139)


@pytest.mark.parametrize("source", ["markov:vocab=4", "ar:order=2"], ids=["tokens", "values"])
def test_a_generator_is_shown_beside_its_optimum(folder, in_process, source):
    code, out, _ = in_process(["train", source, *SMALL, "--steps", 5], folder)
    assert code == 0
    last = out.splitlines()[-1]
    assert last.startswith("validation ")
    assert "bits per token; " in last
    assert "optimal " in last
    assert (folder / "runs" / source.partition(":")[0] / "model.safetensors").is_file()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["nowhere.txt"], "there is no 'nowhere.txt'"),
        (["empty.txt"], "empty.txt must hold some text"),
        (["noise.bin"], "noise.bin must be text"),
        (["markow"], "did you mean 'markov'?"),
        (["text.txt", "--model", "mamba22"], "did you mean 'mamba2'?"),
        (["text.txt", "--model", "mamba2*"], "after '*'"),
        (["text.txt", "--budget", "5 parsecs"], "--budget must be a time such as 90s, 5m or 2h; got '5 parsecs'"),
        (["text.txt", "--steps", "3", "--budget", "5m"], "exactly one of steps and budget"),
        (["text.txt", "--lr", "-1"], "lr must be a positive number"),
        (["text.txt", "--optimizer", "sgd"], "sgd"),
        (["text.txt", "--stepps", "3"], "--stepps"),
        (["text.txt", "--tokenizer", "x.json"], "--tokenizer needs --codec bpe"),
        (["text.txt", "--codec", "bpe", "--tokenizer", "x.json"], "x.json"),
        (["text.txt", "--threads", "0"], "--threads must be at least 1"),
        ([], "source"),
    ],
)
def test_mistakes_are_one_line_and_exit_code_2(folder, in_process, arguments, said):
    (folder / "empty.txt").write_bytes(b"")
    (folder / "noise.bin").write_bytes(bytes(range(256)) * 40)
    code, out, error = in_process(["train", *arguments], folder)
    assert code == 2
    line = error.splitlines()[-1]
    assert line.startswith("runnel: ")
    assert said in line
    assert "Traceback" not in error
    assert out == ""


def test_another_run_in_the_folder_is_refused_and_left_alone(folder, in_process):
    first = in_process(["train", "text.txt", *SMALL, "--steps", 2, "--out", "taken"], folder)
    before = weights(folder / "taken")
    second = in_process(["train", "text.txt", *SMALL, "--steps", 3, "--out", "taken"], folder)
    assert (first[0], second[0]) == (0, 2)
    assert "train.steps is 2 there, 3 here" in second[2]
    assert weights(folder / "taken") == before


def test_divergence_is_the_machines_turn(folder, in_process):
    code, _, error = in_process(["train", "text.txt", *SMALL, "--steps", 50, "--lr", 1e30, "--out", "nan"], folder)
    assert code == 1
    assert "last good checkpoint" in error.splitlines()[-1]


def test_a_full_disk_is_one_line_and_with_more_room_the_same_command_goes_on(folder, in_process):
    """A limit on the size of files stands for the full disk: writing fails in the same way."""
    arguments = [str(part) for part in ("train", "text.txt", *SMALL, "--steps", 3, "--out", "full")]
    full = shell(f"ulimit -f 8; runnel {shlex.join(arguments)}", folder)
    assert full.returncode == 1
    assert full.stderr.splitlines()[-1].startswith("runnel: the checkpoint of step 0 could not be saved in full")
    assert "Traceback" not in full.stderr
    assert in_process(arguments, folder)[0] == 0


@pytest.mark.parametrize(("text", "seconds"), [("90", 90), ("90s", 90), ("1.5m", 90), ("2h", 7200), (" 5 m ", 300)])
def test_times(text, seconds):
    assert math.isclose(page.parse_seconds(text, "--budget"), seconds)


def wait_for_steps(metrics, process) -> None:
    """Until a few steps are in metrics.jsonl."""
    deadline = time.monotonic() + 60
    while not (metrics.is_file() and metrics.read_text().count("\n") >= 3):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.02)


def weights(folder) -> dict[str, bytes]:
    return {name: tensor.numpy().tobytes() for name, tensor in library.load(folder).state_dict().items()}


def test_documents_are_packed_or_bucketed_and_the_padding_is_told(folder, in_process):
    (folder / "docs").mkdir()
    for number in range(40):
        (folder / "docs" / f"{number:02}.txt").write_text("ab" * (number % 7 + 1))
    for option in (["--pack", "shortest_pack_first"], ["--bucket"]):
        code, _, err = in_process(["train", "docs", *SMALL, *option, "--steps", 2, "--out", option[0][2:]], folder)
        assert code == 0, err
        assert "empty columns: " in err and "with documents as they come" in err
    code, _, err = in_process(["train", "docs", *SMALL, "--pack", "buckets"], folder)
    assert code == 2 and "--bucket is the option for buckets" in err
    code, _, err = in_process(["train", "docs", *SMALL, "--pack", "least_squares", "--bucket"], folder)
    assert code == 2 and "give one of --pack and --bucket" in err
