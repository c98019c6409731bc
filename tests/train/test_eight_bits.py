"""Moments of one byte a number: two bytes a weight, about the same run, and the same bits after a restart."""

import os
import signal
import sys

import pytest
import torch
from small_run import exported, make_source

import runnel
from runnel.train import Interrupted, TrainConfig, fit, optim

pytest.importorskip("torchao", reason="moments of 8 bits need torchao")

STEPS = 10


def run(text, folder, optimizer="adamw8bit", on_step=None):
    model = runnel.build("mingru", vocab_size=256, d_model=64, seed=0)
    config = TrainConfig(steps=STEPS, lr=1e-2, save_seconds=1e9, optimizer=optimizer)
    return fit(model, make_source(text), folder, config, on_step)


def state_bytes(name):
    model = runnel.build("mingru", vocab_size=256, d_model=64, seed=0)
    (optimizer,) = optim.build_optimizers(model, TrainConfig(steps=1, optimizer=name))
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    return sum(x.numel() * x.element_size() for x in optim.named_state([optimizer]).values())


def test_a_weight_has_two_bytes_of_state():
    assert state_bytes("adamw8bit") < 0.3 * state_bytes("adamw")


def test_losses_are_about_those_of_adamw(text, tmp_path):
    curves = []
    for name in ("adamw", "adamw8bit"):
        reports = []
        run(text, tmp_path / name, name, reports.append)
        curves.append([report.loss for report in reports])
    assert curves[1] == pytest.approx(curves[0], rel=0.01)
    assert curves[1][-1] < 0.9 * curves[1][0]
    assert curves[1] != curves[0]


def test_interrupted_and_continued(text, tmp_path):
    def stop(report):
        if report.step == 4:
            os.kill(os.getpid(), signal.SIGINT)

    run(text, tmp_path / "whole")
    with pytest.raises(Interrupted):
        run(text, tmp_path / "cut", on_step=stop)
    run(text, tmp_path / "cut")
    assert exported(tmp_path / "cut") == exported(tmp_path / "whole")


def test_what_does_not_go_together_is_refused(monkeypatch):
    with pytest.raises(ValueError, match="adamw8bit cuts moments into blocks, shard into shares"):
        TrainConfig(steps=1, optimizer="adamw8bit", shard=True)
    monkeypatch.setitem(sys.modules, "torchao.optim", None)
    with pytest.raises(ValueError, match=r"adamw8bit needs torchao: pip install 'runnel\[eight-bits\]'"):
        optim.build_optimizers(runnel.build("mingru", 8, 8), TrainConfig(steps=1, optimizer="adamw8bit"))
