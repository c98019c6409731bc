"""Several servers behind one address: the same answer whoever gives it, and states that all of them know."""

import json
import os
import signal
import subprocess
import sys
import time

import httpx
import pytest

from runnel.serve.replicas import labelled, mark_of
from tests.serve import support
from tests.serve.support import alone, text_of


@pytest.fixture(scope="module")
def router(run, tmp_path_factory):
    """A client of two replicas of the command line, and the process of their router."""
    folder = tmp_path_factory.mktemp("states")
    command = [sys.executable, "-m", "runnel", "serve", str(run), "--replicas", "2", "--port", "0", "--json"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen([*command, "--states", str(folder)], stdout=subprocess.PIPE, text=True, env=environment)
    said = ""
    while not said.endswith("}\n"):
        line = process.stdout.readline()
        assert line, "the router did not start"
        said += line
    with httpx.Client(base_url=json.loads(said)["address"], timeout=60) as client:
        client.process = process
        yield client
    process.send_signal(signal.SIGTERM)
    assert process.wait(60) == 0
    process.stdout.close()


def test_answers_are_those_of_one_server(router, model):
    support.check_answers_are_those_of_one_server(router, model)


def test_what_belongs_together_goes_to_the_same_one(router):
    support.check_what_belongs_together_goes_to_the_same_one(router)


def test_a_state_of_one_is_a_state_of_all(router):
    support.check_a_state_of_one_is_a_state_of_all(router, pieces=2)


def test_a_client_that_leaves_frees_its_rows(router):
    support.check_a_client_that_leaves_frees_its_rows(router, patience=1)


def test_a_replica_that_ends_is_started_again(router, model):
    children = subprocess.run(
        ["ps", "-ww", "-o", "pid=,args=", "--ppid", str(router.process.pid)], capture_output=True, text=True, check=True
    )
    pids = [int(line.split()[0]) for line in children.stdout.splitlines() if "spawn_main" in line]
    assert len(pids) == 2
    os.kill(pids[0], signal.SIGKILL)
    end = time.monotonic() + 60
    while router.get("/ready").status_code == 200 and time.monotonic() < end:
        time.sleep(0.01)
    assert router.get("/ready").status_code in (502, 503)
    support.wait(lambda: router.get("/ready").status_code == 200, "it was not started again", 60)
    for i in range(4):
        assert text_of(router, f"again {i}", max_tokens=10, seed=i) == alone(model, f"again {i}", 10, i)[0]


def test_marks_and_metrics():
    assert mark_of(b'{"state": "x", "prompt": "abc"}') == mark_of(b'{"state": "x", "prompt": "d"}') == '"x"'
    assert mark_of(b'{"messages": [1]}') == "[1]"
    assert mark_of(b"[") is mark_of(b"[]") is mark_of(b"{}") is None
    text = '# HELP a A.\n# TYPE a counter\na 1.0\na{b="c"} 2.0\n'
    told = '# HELP a A.\n# TYPE a counter\na{replica="0"} 1.0\na{b="c",replica="0"} 2.0\n'
    assert labelled([text, text]) == told + told.split("\n", 2)[2].replace('"0"', '"1"')
