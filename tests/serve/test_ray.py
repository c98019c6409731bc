"""The Ray Serve application on a Ray that the test starts and stops: one server to its clients, whoever answers."""

import importlib
import os
import secrets
import signal
import socket
import subprocess
import sys
import tempfile
import time
import warnings
from contextlib import ExitStack
from pathlib import Path

import httpx
import pytest
from starlette.requests import Request

from runnel.serve.errors import Refused
from runnel.serve.keys import Key, Keys
from tests.serve.support import alone, completion, parts_of, text_of

pytest.importorskip("ray", reason="the Ray Serve application needs Ray: pip install 'runnel[serve,ray]'")

BIN = Path(sys.executable).parent
pytestmark = [pytest.mark.thorough, pytest.mark.timeout(900)]  # processes begin slowly on a busy machine


@pytest.fixture(scope="module")
def page():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Ray's own, when it is imported
        return importlib.import_module("runnel.serve.ray")


def _free_ports(count):
    with ExitStack() as open_ones:
        sockets = [open_ones.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]


def _wait(ready, what):
    end = time.monotonic() + 200
    while not ready():
        assert time.monotonic() < end, what
        time.sleep(0.1)


@pytest.fixture(scope="module")
def front(run, tmp_path_factory):
    """A client of two servers, started as docs/serving.md says; `known`: what a process must know to join Ray."""
    states, (ray_port, http_port) = tmp_path_factory.mktemp("states"), _free_ports(2)
    own = {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0", "RAY_USAGE_STATS_ENABLED": "0", "OMP_NUM_THREADS": "1"}
    known = {**os.environ, **own, "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
    known["RAY_ADDRESS"] = f"127.0.0.1:{ray_port}"
    with tempfile.TemporaryDirectory(prefix="ray") as folder, (Path(folder) / "log").open("w+") as log:
        said, options = {"env": known, "stdout": log, "stderr": log}, ["--port", str(ray_port), "--temp-dir", folder]
        start = [BIN / "ray", "start", "--head", "--block", "--num-cpus", "4", "--include-dashboard", "false", *options]
        ray = subprocess.Popen(start, start_new_session=True, **said)
        try:
            _wait(lambda: "runtime started" in Path(log.name).read_text(), "Ray did not start")
            subprocess.run([BIN / "serve", "start", "--http-port", str(http_port)], check=True, **said)
            asked = ["runnel.serve.ray:app", f"run={run}", f"states={states}", "replicas=2"]
            subprocess.run([BIN / "serve", "run", "--non-blocking", *asked], check=True, timeout=200, **said)
            with httpx.Client(base_url=f"http://127.0.0.1:{http_port}", timeout=60) as client:
                _wait(lambda: client.get("/ready").status_code == 200, "the servers did not start")
                client.known = known
                yield client
        finally:
            ray.send_signal(signal.SIGTERM)
            ray.wait(60)


def metric(front, name):
    """A number that each server tells."""
    lines = [line for line in front.get("/metrics").text.splitlines() if line.startswith(name)]
    return [float(line.split()[1]) for line in lines]


def written(front):
    return metric(front, "runnel_tokens_written_total")


def test_nothing_listens_beyond_loopback(front):
    told = subprocess.run(["ss", "-Hltnp"], capture_output=True, text=True, check=True).stdout
    pids = subprocess.run(["ps", "-eo", "pid=,args="], capture_output=True, text=True, check=True).stdout
    own = {line.split()[0] for line in pids.splitlines() if "ray::Serve" in line or "gcs_server" in line}
    assert own
    listening = [line for line in told.splitlines() if any(f"pid={pid}," in line for pid in own)]
    assert all(line.split()[3].startswith(("127.", "[::1]", "[::ffff:127.")) for line in listening), listening


def test_answers_are_those_of_one_server(front, model):
    for i in range(8):
        assert text_of(front, f"number {i}", max_tokens=10, seed=i) == alone(model, f"number {i}", 10, i)[0]
    assert len(written(front)) == 2 and all(written(front))  # both have had some
    parts = parts_of(front, "/v1/completions", {"prompt": "abc", "max_tokens": 10, "seed": 1})
    assert "".join(part["choices"][0]["text"] for part in parts) == alone(model, "abc", 10, 1)[0]
    assert front.get("/").headers["content-security-policy"].startswith("default-src 'none'")
    assert front.post("/v1/completions", json={"prompt": 3}).status_code == 400
    assert front.get("/nowhere").status_code == 404
    assert front.get("/v1/models", headers={"Host": "evil.example"}).status_code == 403
    for odd in ("#x", "=x", "#99"):  # no client names a server
        asked = {"prompt": "abc", "max_tokens": 1}
        assert front.post("/v1/completions", json=asked, headers={"Authorization": odd}).status_code == 200


def test_what_belongs_together_goes_to_the_same_one(front):
    before = written(front)
    for _ in range(6):
        text_of(front, "always the same", max_tokens=10)
    gained = sorted(b - a for a, b in zip(before, written(front), strict=True))
    assert gained == [0, 60]


def test_a_state_of_one_is_a_state_of_all(front):
    first = completion(front, "abc", max_tokens=10, seed=1, save_state=True)["choices"][0]
    text = b"abc" + first["text"].encode()
    kept = front.post("/v1/states", content=(text for _ in range(2000)), headers={"Content-Type": "text/plain"})
    assert kept.status_code == 201
    assert kept.json()["tokens"] == 2000 * len(text)
    known = [state["id"] for state in front.get("/v1/states").json()["data"]]
    assert known.count(first["state"]) == known.count(kept.json()["id"]) == 1
    for i in range(4):
        assert front.get(f"/v1/states/{first['state']}").json()["tokens"] == 13
        assert text_of(front, f"{i}", max_tokens=5, seed=2, state=first["state"])
    assert front.delete(f"/v1/states/{first['state']}").json()["deleted"]
    for _ in range(4):
        assert front.get(f"/v1/states/{first['state']}").status_code == 404


def test_a_client_that_leaves_frees_its_rows(front):
    for stream in (False, True):
        asked = {"prompt": "abc", "max_tokens": 30_000, "stream": stream}
        with pytest.raises(httpx.ReadTimeout), front.stream("POST", "/v1/completions", json=asked, timeout=2):
            assert stream and sum(metric(front, "runnel_batch_rows")) == 1
            raise httpx.ReadTimeout("it leaves")
        _wait(lambda: not sum(metric(front, "runnel_batch_rows")), "its row is still being written")


def test_a_server_that_ends_is_started_again_and_states_stay(front, model):
    kept = completion(front, "abc", max_tokens=10, seed=1, save_state=True)["choices"][0]["state"]
    said = subprocess.run(["ps", "-eo", "pid=,args="], capture_output=True, text=True, check=True).stdout
    pids = [int(line.split()[0]) for line in said.splitlines() if "ServeReplica:default:Server" in line]
    assert len(pids) == 2
    for pid in pids:
        os.kill(pid, signal.SIGKILL)
    _wait(lambda: front.get("/ready").status_code == 200 and written(front) == [0, 0], "they were not started again")
    for i in range(2):
        assert text_of(front, f"again {i}", max_tokens=10, seed=i) == alone(model, f"again {i}", 10, i)[0]
    assert front.get(f"/v1/states/{kept}").json()["tokens"] == 13


def test_who_belongs_to_whom(page):
    preferred = page.preferred
    assert preferred([b"a", b"c", b"b"], [0, 4, 2]) == [1, 0, 2]
    assert preferred([b"a", b"c", b"b"], [0, 5, 2]) == [0, 2, 1]  # it has too much to do
    assert preferred(None, [3, 0, 2]) == [1, 2, 0]
    assert preferred([], []) == []


def test_mistakes_are_told_before_anything_starts(page, run, tmp_path):
    with pytest.raises(ValueError, match=r"run\n.*Field required"):
        page.app({"states": str(tmp_path)})
    with pytest.raises(ValueError, match=r"colour\n.*Extra inputs"):
        page.app({"run": str(run), "states": str(tmp_path), "colour": "red"})


def test_without_keys_nobody_else_is_served(page):
    def asked(host):
        return Request({"type": "http", "headers": [], "client": (host, 1)})

    someone = Keys([Key("alice", "0" * 64)])
    for host, keys, force in (("127.0.0.1", Keys(), False), ("10.0.0.7", someone, False), ("10.0.0.7", Keys(), True)):
        page.check_caller(asked(host), keys, force)
    with pytest.raises(Refused, match="its own machine only"):
        page.check_caller(asked("10.0.0.7"), Keys(), False)
