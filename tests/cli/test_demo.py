"""The demo from beginning to end, as its --help says to run it."""

import json
import shutil

from runnel.cli import demo as page
from runnel.cli._screen import printable
from tests.cli.conftest import shell


def test_demo_tells_everything_in_plain_text(demo):
    _, result = demo
    assert result.returncode == 0, result.stderr
    for part in (
        "unigram",
        "order-3 n-gram",
        "bits per byte",
        "def read_lines(path):",
        "64 tokens written",
        "1,000,000",
    ):
        assert part in result.stdout
    assert "training 100%" in result.stderr
    assert "\x1b" not in result.stdout + result.stderr
    assert printable(result.stdout) == result.stdout


def test_demo_saves_model_plot_and_state(demo):
    folder, _ = demo
    assert (folder / "runs/demo/loss.png").read_bytes().startswith(b"\x89PNG")
    for name in ("config.json", "model.safetensors", "prompt.state", "metrics.jsonl"):
        assert (folder / "runs/demo" / name).stat().st_size > 0


def test_the_printed_command_goes_on_with_the_completion(demo, in_process):
    folder, result = demo
    command = result.stdout.rstrip().splitlines()[-1].strip()
    assert "generate" in command
    assert "--state" in command
    continued = shell(f"{command} --max-tokens 60 --json", folder)
    assert continued.returncode == 0, continued.stderr
    text = json.loads(continued.stdout)["samples"][0]["text"]
    shown = result.stdout.split('a file."""\n', 1)[1]
    assert shown.startswith(printable(text[:-1]))  # the last character may be half of one
    by_name = ["generate", "runs/demo", "--state", "prompt.state", "--max-tokens", 60, "--threads", 1, "--json"]
    assert json.loads(in_process(by_name, folder)[1])["samples"] == json.loads(continued.stdout)["samples"]


def test_a_finished_demo_is_shown_again_without_training(demo, in_process):
    folder, first = demo
    before = (folder / "runs/demo/model.safetensors").read_bytes()
    code, out, error = in_process(["demo", "--seconds", 3, "--json"], folder)
    assert code == 0
    assert "no training this time" in error
    assert (folder / "runs/demo/model.safetensors").read_bytes() == before
    found = json.loads(out)
    assert f"validation {found['valid_bits_per_byte']:.3f}" in first.stdout
    assert found["agreement"]["greedy_texts_identical"] is True
    assert found["agreement"]["forms"][1]["difference"] < 1e-9
    assert [row["tokens"] for row in found["sizes"]] == [1000, 100_000, 1_000_000]


def test_other_seconds_in_the_same_folder_are_refused(demo, in_process):
    code, _, error = in_process(["demo", "--seconds", 6], demo[0])
    assert code == 2
    assert "train.budget is 3.0 there, 6.0 here" in error
    assert "--fresh" in error


def test_fresh_deletes_what_is_ours_and_nothing_else(demo, tmp_path):
    shutil.copytree(demo[0] / "runs/demo", tmp_path / "run")
    (tmp_path / "run/notes.txt").write_text("mine")
    page.clear(tmp_path / "run")
    assert sorted(path.name for path in (tmp_path / "run").iterdir()) == [".lock", "notes.txt"]
