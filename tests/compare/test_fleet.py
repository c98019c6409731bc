"""A comparison on a Ray cluster that the test starts and stops: killed and resumed, it ends as one without Ray."""

import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

from runnel.compare import jobs
from runnel.compare.fleet import LOOPBACK
from tests.cli.conftest import environment

pytest.importorskip("ray", reason="a fleet needs Ray: pip install 'runnel[ray]'")
pytestmark = [pytest.mark.thorough, pytest.mark.timeout(900)]  # processes begin slowly on a busy machine

COMMAND = (
    *(sys.executable, "-m", "runnel", "compare", "text.txt", "--models", "mingru,linear_attention", "--budget", "8s"),
    *("--tasks", "parity", "--d-model", "8", "--layers", "1", "--length", "16", "--batch", "2", "--task-width", "8"),
    *("--task-layers", "1", "--rates", "1e-3,1e-2", "--jobs", "2"),
)


@pytest.fixture(scope="module")
def cluster():
    """The address of a Ray of two CPUs on this machine, and what a process must know to join it."""
    with socket.socket() as free, tempfile.TemporaryDirectory(prefix="ray") as folder:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
        free.close()
        own = {LOOPBACK: "0", "RAY_USAGE_STATS_ENABLED": "0", "RAY_AUTH_MODE": "token"}
        known = {**environment(), **own, "RAY_AUTH_TOKEN": secrets.token_hex(32)}
        program = [str(Path(sys.executable).parent / "ray"), "start", "--head", "--block", "--num-cpus", "2"]
        options = ["--port", address.rpartition(":")[2], "--include-dashboard", "false", "--temp-dir", folder]
        with (Path(folder) / "log").open("w") as log:
            ray = subprocess.Popen([*program, *options], env=known, stdout=log, stderr=log, start_new_session=True)
        try:
            _wait(lambda: "runtime started" in (Path(folder) / "log").read_text(), ray)
            yield address, known
        finally:
            ray.send_signal(signal.SIGTERM)
            ray.wait(60)


def _wait(ready, process):
    end = time.monotonic() + 120
    while not ready():
        assert process.poll() is None, "it ended before"
        assert time.monotonic() < end, "it took too long"
        time.sleep(0.05)


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "text.txt").write_text("the state of a model is a plain value; " * 60)
    return tmp_path


def _keys(records):
    names = ("kind", "model", "seed", "rate", "task")
    return sorted(json.dumps([record[name] for name in names]) for record in records)


def _losses(records):
    return {json.dumps([record["kind"], record["model"], record["rate"]]): record.get("nats") for record in records}


def test_a_killed_comparison_goes_on_with_the_fleet_and_without(cluster, folder):
    address, known = cluster
    options = {"cwd": folder, "env": known, "text": True}
    results, program = folder / "out" / jobs.FILE, [*COMMAND, "--out", "out"]
    begun = subprocess.Popen([*program, "--ray", address], **options)
    _wait(lambda: results.is_file() and results.read_text().count("\n") >= 2, begun)
    os.kill(begun.pid, signal.SIGKILL)
    begun.wait()
    planned = (folder / "out" / "plan.json").read_text()

    begun = subprocess.Popen([*program, "--ray", address, "--resume"], **options)
    _wait(lambda: results.read_text().count("\n") >= 5, begun)
    begun.send_signal(signal.SIGINT)
    assert begun.wait(60) == 130
    ended = subprocess.run([*program, "--resume", "--json"], check=True, capture_output=True, **options)
    assert (folder / "out" / "plan.json").read_text() == planned
    records = jobs.read_records(folder / "out")
    assert len(set(_keys(records))) == len(records) == 11
    assert {model["pattern"] for model in json.loads(ended.stdout)["models"]} == {"mingru", "linear_attention"}

    (folder / "here").mkdir()
    (folder / "here" / "plan.json").write_text(planned)
    subprocess.run([*COMMAND, "--out", "here", "--resume"], check=True, capture_output=True, **options)
    assert _losses(records) == _losses(jobs.read_records(folder / "here"))


def test_a_task_whose_worker_dies_is_begun_again(cluster, folder):
    address, known = cluster
    program = [*COMMAND, "--out", "out", "--ray", address, "--json"]
    begun = subprocess.Popen(program, cwd=folder, env=known, text=True, stdout=subprocess.PIPE)
    _wait(lambda: (folder / "out" / jobs.FILE).is_file(), begun)
    at_work = subprocess.run(["ps", "-eo", "pid=,args="], capture_output=True, text=True, check=True).stdout
    pids = [int(line.split()[0]) for line in at_work.splitlines() if "ray::_there" in line]
    assert pids
    os.kill(pids[0], signal.SIGKILL)
    told, _ = begun.communicate(timeout=200)
    assert begun.returncode == 0
    assert len(json.loads(told)["models"]) == 2
    assert len(jobs.read_records(folder / "out")) == 11


def test_nobody_at_the_address(folder):
    program = [*COMMAND, "--ray", "127.0.0.1:1"]
    ended = subprocess.run(program, cwd=folder, env=environment(), capture_output=True, text=True, check=False)
    assert ended.returncode == 2
    assert "--ray must be the address of a running Ray cluster" in ended.stderr.splitlines()[-1]
