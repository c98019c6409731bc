"""A run that is stopped, in whatever way, and started again is the run that never was."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import small_run
import torch
from small_run import exported, run

from runnel.train import Interrupted, TrainConfig, fit, metrics
from runnel.train.guard import locked

EVERYTHING = {
    "optimizer": "muon",
    "schedule": "wsd",
    "precision": "bfloat16",
    "accumulate": 2,
    "ema": 0.9,
    "patience": 3,
}


def signal_at(step, number=signal.SIGINT):
    def on_step(report):
        if report.step == step:
            os.kill(os.getpid(), number)

    return on_step


def start(text, folder, settings):
    command = [sys.executable, small_run.__file__, str(text), str(folder), json.dumps(settings)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def losses(folder):
    """metrics.jsonl without what the clock says."""
    clock = {"seconds", "tokens_per_second"}
    return [{key: value for key, value in line.items() if key not in clock} for line in metrics.read(Path(folder))]


def test_killed_at_any_moment(text, tmp_path):
    settings = {**EVERYTHING, "steps": 50, "save_seconds": 0.0}
    run(text, tmp_path / "whole", **{**settings, "save_seconds": 1e9})  # when checkpoints are saved decides nothing
    rng, kills = random.Random(time.time_ns()), 0
    for _ in range(3):
        process = start(text, tmp_path / "killed", settings)
        for _ in range(rng.randrange(1, 8)):
            process.stdout.readline()
        time.sleep(rng.uniform(0, 0.02))  # a step and its checkpoint take about as long: either may be hit
        process.kill()
        process.communicate()
        kills += process.returncode == -signal.SIGKILL
    assert kills > 0
    run(text, tmp_path / "killed", **settings)
    assert exported(tmp_path / "killed") == exported(tmp_path / "whole")
    assert losses(tmp_path / "killed") == losses(tmp_path / "whole")


@pytest.mark.parametrize("settings", [{}, {"ema": 0.9, "accumulate": 2}, EVERYTHING], ids=["adamw", "ema", "all"])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupted_and_continued(text, tmp_path, settings, number):
    run(text, tmp_path / "whole", **settings)
    with pytest.raises(Interrupted) as interrupted:
        run(text, tmp_path / "cut", signal_at(7, number), **settings)
    assert interrupted.value.step == 7
    assert interrupted.value.folder == tmp_path / "cut"
    assert "the same command again goes on from there" in str(interrupted.value)
    assert not (tmp_path / "cut" / "model.safetensors").exists()
    run(text, tmp_path / "cut", **settings)
    assert exported(tmp_path / "cut") == exported(tmp_path / "whole")
    assert losses(tmp_path / "cut") == losses(tmp_path / "whole")


def test_interrupted_after_the_best_validation(text, tmp_path):
    settings = {"lr": 3.0, "warmup": 0.9, "clip": None, "valid_every": 2, "patience": 9}  # worse and worse
    run(text, tmp_path / "whole", **settings)
    valid = [line["loss"] for line in losses(tmp_path / "whole") if line["split"] == "valid"]
    after_best = 2 * valid.index(min(valid)) + 3
    assert after_best < 12
    with pytest.raises(Interrupted):
        run(text, tmp_path / "cut", signal_at(after_best), **settings)
    run(text, tmp_path / "cut", **settings)
    assert exported(tmp_path / "cut") == exported(tmp_path / "whole")


def test_interrupted_in_a_validation(text, tmp_path):
    class Signalling:
        """A source during whose validations Ctrl-C is pressed."""

        def __init__(self, source):
            self.source, self.vocab_size, self.facts, self.codec = source, source.vocab_size, source.facts, source.codec
            self.batch = source.batch

        def valid(self):
            os.kill(os.getpid(), signal.SIGINT)
            yield from self.source.valid()

    config = TrainConfig(**small_run.SETTINGS)
    run(text, tmp_path / "whole")
    with pytest.raises(Interrupted) as interrupted:
        fit(small_run.make_model(), Signalling(small_run.make_source(text)), tmp_path / "cut", config)
    assert interrupted.value.step == config.valid_every
    assert not any(line["split"] == "valid" for line in losses(tmp_path / "cut"))
    run(text, tmp_path / "cut")
    assert losses(tmp_path / "cut") == losses(tmp_path / "whole")


def test_signal_handlers_are_put_back(text, tmp_path):
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    with pytest.raises(Interrupted):
        run(text, tmp_path, signal_at(1))
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before


def test_an_ended_run_is_exported_again_without_a_step(text, tmp_path):
    first = run(text, tmp_path)
    bits = exported(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"damaged")
    reports = []
    assert run(text, tmp_path, reports.append) == first
    assert reports == []
    assert exported(tmp_path) == bits


def test_another_run_is_refused_and_the_differences_named(text, tmp_path):
    run(text, tmp_path)
    bits = exported(tmp_path)
    with pytest.raises(ValueError, match=r"train\.lr is 0\.01 there, 0\.02 here; train\.clip is 1\.0 there, null here"):
        run(text, tmp_path, lr=2e-2, clip=None)
    config = TrainConfig(**small_run.SETTINGS)
    with pytest.raises(ValueError, match=r"data\.batch_shape is \[4, 24\] there, \[8, 24\] here"):
        fit(small_run.make_model(), small_run.make_source(text, batch_size=8), tmp_path, config)
    with pytest.raises(ValueError, match=r"model\.\w+ is "):
        fit(small_run.make_model(pattern="mingru"), small_run.make_source(text), tmp_path, config)
    assert exported(tmp_path) == bits
    run(text, tmp_path, save_seconds=5.0, log_every=2)  # these decide nothing


def test_a_model_without_checkpoints_is_not_overwritten(text, tmp_path):
    (tmp_path / "model.safetensors").write_bytes(b"precious")
    with pytest.raises(ValueError, match="it holds a model without checkpoints"):
        run(text, tmp_path)
    assert exported(tmp_path) == b"precious"


def test_a_second_process_is_refused(text, tmp_path):
    with locked(tmp_path):
        process = start(text, tmp_path, small_run.SETTINGS)
        _, errors = process.communicate()
    assert process.returncode == 2
    assert errors == f"{tmp_path} must not be in use; another process is training in it\n"
    assert not (tmp_path / "checkpoints").exists()


def test_damage_is_passed_over_with_a_warning_and_the_run_ends_the_same(text, tmp_path, capsys):
    run(text, tmp_path / "whole")
    with pytest.raises(Interrupted):
        run(text, tmp_path / "cut", signal_at(7), save_seconds=0.0)
    newest = tmp_path / "cut" / "checkpoints" / "step-000000007" / "tensors.safetensors"
    newest.write_bytes(newest.read_bytes()[:-1])
    run(text, tmp_path / "cut")
    warning = capsys.readouterr().err
    assert f"{newest} is truncated" in warning
    assert "going on from step-000000006" in warning
    assert exported(tmp_path / "cut") == exported(tmp_path / "whole")


def test_generator_is_left_as_it_was(text, tmp_path):
    torch.manual_seed(5)
    before = torch.get_rng_state()
    run(text, tmp_path)
    assert torch.equal(torch.get_rng_state(), before)
