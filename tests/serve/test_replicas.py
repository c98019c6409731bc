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
from tests.serve.support import alone, completion, parts_of, text_of


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


def written(router):
    """Tokens that each replica has written."""
    lines = [
        line for line in router.get("/metrics").text.splitlines() if line.startswith("runnel_tokens_written_total")
    ]
    return [float(line.split()[1]) for line in lines]


def test_answers_are_those_of_one_server(router, model):
    for i in range(8):
        assert text_of(router, f"number {i}", max_tokens=10, seed=i) == alone(model, f"number {i}", 10, i)[0]
    assert all(written(router))  # both have had some
    parts = parts_of(router, "/v1/completions", {"prompt": "abc", "max_tokens": 10, "seed": 1})
    assert "".join(part["choices"][0]["text"] for part in parts) == alone(model, "abc", 10, 1)[0]
    assert router.get("/").headers["content-security-policy"].startswith("default-src 'none'")
    assert router.post("/v1/completions", json={"prompt": 3}).status_code == 400


def test_what_belongs_together_goes_to_the_same_one(router):
    before = written(router)
    for _ in range(6):
        text_of(router, "always the same", max_tokens=10)
    gained = sorted(b - a for a, b in zip(before, written(router), strict=True))
    assert gained == [0, 60]


def test_a_state_of_one_is_a_state_of_all(router, model):
    first = completion(router, "abc", max_tokens=10, seed=1, save_state=True)["choices"][0]
    kept = router.post("/v1/states", content=b"abc" + first["text"].encode(), headers={"Content-Type": "text/plain"})
    assert kept.status_code == 201
    known = [state["id"] for state in router.get("/v1/states").json()["data"]]
    assert known.count(first["state"]) == known.count(kept.json()["id"]) == 1
    for i in range(4):  # whoever has it, all can go on from it: these belong to their state
        assert router.get(f"/v1/states/{first['state']}").json()["tokens"] == 13
        assert text_of(router, f"{i}", max_tokens=5, seed=2, state=first["state"])
    assert router.delete(f"/v1/states/{first['state']}").json()["deleted"]
    for _ in range(4):
        assert router.get(f"/v1/states/{first['state']}").status_code == 404


def test_a_client_that_leaves_frees_its_rows(router):
    def rows():
        lines = router.get("/metrics").text.splitlines()
        return sum(float(line.split()[1]) for line in lines if line.startswith("runnel_batch_rows"))

    for stream in (False, True):
        asked = {"prompt": "abc", "max_tokens": 30_000, "stream": stream}
        with pytest.raises(httpx.ReadTimeout), router.stream("POST", "/v1/completions", json=asked, timeout=1):
            assert stream and rows() == 1
            raise httpx.ReadTimeout("it leaves")
        end = time.monotonic() + 20
        while rows():
            assert time.monotonic() < end, "its row is still being written"
            time.sleep(0.05)


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
    while router.get("/ready").status_code != 200:
        assert time.monotonic() < end, "it was not started again"
        time.sleep(0.1)
    for i in range(4):
        assert text_of(router, f"again {i}", max_tokens=10, seed=i) == alone(model, f"again {i}", 10, i)[0]


def test_marks_and_metrics():
    assert mark_of(b'{"state": "x", "prompt": "abc"}') == mark_of(b'{"state": "x", "prompt": "d"}') == '"x"'
    assert mark_of(b'{"messages": [1]}') == "[1]"
    assert mark_of(b"[") is mark_of(b"[]") is mark_of(b"{}") is None
    text = '# HELP a A.\n# TYPE a counter\na 1.0\na{b="c"} 2.0\n'
    told = '# HELP a A.\n# TYPE a counter\na{replica="0"} 1.0\na{b="c",replica="0"} 2.0\n'
    assert labelled([text, text]) == told + told.split("\n", 2)[2].replace('"0"', '"1"')
