"""A comparison as a whole: it ends in a report, a killed one goes on, and what it says is what was run."""

import json
import math
import os
import re
import signal
import subprocess
import sys
import time

import pytest

from runnel import compare
from runnel.compare import jobs, plan, summary, tasks, work
from runnel.compare.entrants import parse_entrants
from tests.cli.conftest import environment

COMMAND = (
    *("compare", "text.txt", "--models", "mingru,linear_attention", "--budget", "6s", "--tasks", "parity"),
    *("--d-model", "8", "--layers", "1", "--length", "16", "--batch", "2", "--task-width", "8", "--task-layers", "1"),
    *("--rates", "1e-3,1e-2", "--jobs", "1", "--out", "out"),
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with a text, and a comparison of it that was killed, then resumed."""
    made = tmp_path_factory.mktemp("compare")
    (made / "text.txt").write_text("the state of a model is a plain value; " * 60)
    return made


def few_steps(folder, monkeypatch):
    """A plan of a few steps, whatever the machine."""
    monkeypatch.chdir(folder)
    entrants = parse_entrants("mingru,linear_attention", 8, 1, "none", 256)
    return compare.Plan(
        data="text.txt",
        entrants=tuple(entrants),
        equal="none",
        budget=1.0,
        seeds=1,
        length=16,
        batch_size=2,
        rates=(1e-3, 1e-2),
        tasks=("parity",),
        task_width=8,
        task_layers=1,
        workers=2,
        steps=24,
        task_steps=12,
        pace=(0.0, 0.0),
    )


def test_every_job_has_one_line_and_the_report_holds_them(folder, monkeypatch, tmp_path):
    asked = few_steps(folder, monkeypatch)
    seen = []
    records = compare.run_jobs(asked, tmp_path, lambda done, text: seen.append(done))
    kinds = [record["kind"] for record in records]
    assert {kind: kinds.count(kind) for kind in work.KINDS} == {"rate": 4, "text": 2, "task": 3, "speed": 2}
    assert seen == sorted(seen)
    assert seen[-1] == 1.0
    again = compare.run_jobs(asked, tmp_path, lambda done, text: pytest.fail("a finished job was done again"))
    assert again == records

    found = compare.summarise(asked, records)
    for at, model in enumerate(found["models"]):
        tried = {float(rate): nats for rate, nats in model["nats_by_rate"].items()}
        assert model["rate"] == min(tried, key=tried.get)
        run = next(r for r in records if r["kind"] == "text" and r["model"] == at)
        assert run["rate"] == model["rate"]
        assert model["bits"] == pytest.approx(run["nats"] / math.log(2))
        assert run["tokens"] == found["tokens"] == 24 * 16 * 2
    assert found["rows"][-1] == tasks.CONTROL
    assert found["tasks"][0]["scores"][2][0]["value"] < 0.7
    compare.write_report(tmp_path, found)
    html = (tmp_path / "report.html").read_text()
    assert html.count("<svg") == 3
    assert not re.search(r'(src|href)="(?!#|data:)|url\((?!#)|@import', html), "the page must need nothing from outside"
    assert json.loads((tmp_path / "report.json").read_text()) == found


def test_a_killed_comparison_goes_on_with_the_same_steps(folder, in_process):
    program = [sys.executable, "-m", "runnel", *COMMAND]
    options = {"cwd": folder, "env": environment(), "text": True}
    process = subprocess.Popen(program, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, **options)
    results, deadline = folder / "out" / jobs.FILE, time.monotonic() + 120
    while not (results.is_file() and results.read_text().count("\n") >= 2):
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.05)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    planned = (folder / "out" / plan.FILE).read_text()

    code, _, error = in_process(COMMAND, folder)
    assert code == 2
    assert "add --resume to go on with it" in error.splitlines()[-1]
    code, _, error = in_process([*COMMAND, "--resume", "--seeds", "2"], folder)
    assert code == 2
    assert "was begun with seeds 1; got 2" in error.splitlines()[-1]
    resumed = subprocess.run([*program, "--resume", "--json"], capture_output=True, check=False, **options)
    assert resumed.returncode == 0, resumed.stderr
    assert (folder / "out" / plan.FILE).read_text() == planned
    records = jobs.read_records(folder / "out")
    assert len(records) == 11
    assert len({json.dumps([r[name] for name in ("kind", "model", "rate", "task")]) for r in records}) == 11
    found = json.loads(resumed.stdout)
    assert {model["pattern"] for model in found["models"]} == {"mingru", "linear_attention"}
    assert found["baselines"].keys() == {"unigram", "order-3 n-gram", "order-5 n-gram"}


def test_a_run_that_diverges_is_a_result(folder, monkeypatch, tmp_path):
    asked = few_steps(folder, monkeypatch)
    record = work.perform(asked, work.Job("text", 0, rate=1e30), tmp_path)
    assert "finite" in record["diverged"]
    found = summary.summarise(asked, [record])
    assert (found["models"][0]["bits"], found["models"][0]["diverged"]) == (None, 1)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["nowhere.txt"], "there is no 'nowhere.txt'"),
        (["empty.txt"], "empty.txt must hold some text"),
        (["text.txt", "--models", "mamba22"], "did you mean 'mamba2'?"),
        (["text.txt", "--models", "(mamba2*3,attention"], "closing ')'"),
        (["text.txt", "--budget", "soon"], "--budget must be a time"),
        (["text.txt", "--budget", "1s", "--length", "16"], "--budget must be at least"),
        (["text.txt", "--rates", "fast"], "--rates must be positive numbers"),
        (["text.txt", "--tasks", "chess"], "there is no task 'chess'"),
        (["text.txt", "--seeds", "0"], "--seeds must be at least 1"),
        (["-", "--models", "mingru"], "give a file instead of -"),
        (["ar", "--models", "mingru"], "needs text or a source of tokens"),
        (["text.txt", "--resume", "--out", "nothing-here", "--models", "mingru"], "plan.json does not exist"),
    ],
)
def test_mistakes_are_one_line_and_exit_code_2(folder, in_process, arguments, said):
    (folder / "empty.txt").write_bytes(b"")
    if "--models" not in arguments:
        arguments = [*arguments, "--models", "mingru"]
    code, out, error = in_process(["compare", *arguments, "--d-model", "8", "--layers", "1"], folder)
    line = error.splitlines()[-1]
    assert (code, out) == (2, "")
    assert line.startswith("runnel: ")
    assert said in line


def test_ray_is_asked_for_by_name(folder, in_process, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    code, _, error = in_process(["compare", "text.txt", "--models", "mingru", "--ray", "local"], folder)
    assert code == 2
    assert error.splitlines()[-1].endswith("pip install 'runnel[ray]'")
