"""torchrun starts ranks again after they were killed, and goes on with those that are left."""

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import jobs
import pytest

import runnel
from runnel.train.metrics import read

pytestmark = pytest.mark.thorough  # launchers take their time
LAUNCH = [sys.executable, "-m", "torch.distributed.run"]
WAITS = "keep_alive_interval=1,keep_alive_max_attempt=3,last_call_timeout=3"


def launch(*options, run):
    """Start a launcher."""
    script = Path(__file__).with_name("jobs.py")
    return subprocess.Popen(
        [*LAUNCH, "--monitor-interval", "0.2", "--max-restarts", "3", *options, str(script), *map(str, run)],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


def kill(launcher):
    """A launcher and its ranks, as when a machine is gone."""
    ranks = Path(f"/proc/{launcher}/task/{launcher}/children").read_text().split()
    for process in (launcher, *map(int, ranks)):
        os.kill(process, signal.SIGKILL)


def weights(folder):
    return [p.tolist() for p in runnel.load(folder).parameters()]


def settings(steps):
    return {**jobs.small_run.SAVING, "steps": steps}


def test_killed_ranks_are_started_again(text, tmp_path):
    assert launch("--nproc-per-node", "2", run=(text, tmp_path / "whole", 8, 0, "not")).wait(150) == 0
    assert launch("--nproc-per-node", "2", run=(text, tmp_path / "cut", 8, 0, "killed")).wait(150) == 0
    assert weights(tmp_path / "cut") == weights(tmp_path / "whole")  # to the bit, killed twice
    steps = [line["step"] for line in read(tmp_path / "cut") if line["split"] == "train"]
    assert steps == list(range(1, 9))


def test_a_machine_that_is_gone_leaves_the_run_to_the_others(text, tmp_path):
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    nodes = ["--nnodes", "1:2", "--nproc-per-node", "1", "--rdzv-backend", "c10d", "--rdzv-id", "here"]
    nodes += ["--rdzv-endpoint", f"localhost:{port}", "--rdzv-conf", WAITS]
    run = (text, tmp_path / "run", 40, 0.3, "not")
    first = launch(*nodes, run=run)
    time.sleep(2)
    second = launch(*nodes, run=run)
    try:
        lines = tmp_path / "run" / "metrics.jsonl"
        while not (lines.exists() and len(lines.read_text().splitlines()) > 4):
            assert first.poll() is None and second.poll() is None
            time.sleep(0.1)
        kill(second.pid)
        assert first.wait(150) == 0
    finally:
        for process in (first, second):
            if process.poll() is None:
                kill(process.pid)
            process.wait()
    losses = [line["loss"] for line in read(tmp_path / "run") if line["split"] == "train"]
    wanted = jobs.train(text, tmp_path / "one", None, settings(40))
    assert losses == pytest.approx(wanted[0], abs=1e-6)
