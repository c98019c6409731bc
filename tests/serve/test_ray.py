"""The Ray Serve application on a Ray that the test starts and stops: one server to its clients, whoever answers."""

import importlib
import os
import secrets
import signal
import socket
import subprocess
import sys
import tempfile
import warnings
from contextlib import ExitStack
from pathlib import Path

import httpx
import pytest
from starlette.requests import Request

from runnel.serve.errors import Refused
from runnel.serve.keys import Key, Keys
from tests.serve import support
from tests.serve.support import alone, completion, text_of, wait, written

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
            wait(lambda: "runtime started" in Path(log.name).read_text(), "Ray did not start")
            subprocess.run([BIN / "serve", "start", "--http-port", str(http_port)], check=True, **said)
            asked = ["runnel.serve.ray:app", f"run={run}", f"states={states}", "replicas=2"]
            subprocess.run([BIN / "serve", "run", "--non-blocking", *asked], check=True, timeout=200, **said)
            with httpx.Client(base_url=f"http://127.0.0.1:{http_port}", timeout=60) as client:
                wait(lambda: client.get("/ready").status_code == 200, "the servers did not start")
                client.known = known
                yield client
        finally:
            ray.send_signal(signal.SIGTERM)
            ray.wait(60)


def test_nothing_listens_beyond_loopback(front):
    told = subprocess.run(["ss", "-Hltnp"], capture_output=True, text=True, check=True).stdout
    pids = subprocess.run(["ps", "-eo", "pid=,args="], capture_output=True, text=True, check=True).stdout
    own = {line.split()[0] for line in pids.splitlines() if "ray::Serve" in line or "gcs_server" in line}
    assert own
    listening = [line for line in told.splitlines() if any(f"pid={pid}," in line for pid in own)]
    assert all(line.split()[3].startswith(("127.", "[::1]", "[::ffff:127.")) for line in listening), listening


def test_answers_are_those_of_one_server(front, model):
    support.check_answers_are_those_of_one_server(front, model)
    assert front.get("/nowhere").status_code == 404
    assert front.get("/v1/models", headers={"Host": "evil.example"}).status_code == 403
    for odd in ("#x", "=x", "#99"):  # no client names a server
        asked = {"prompt": "abc", "max_tokens": 1}
        assert front.post("/v1/completions", json=asked, headers={"Authorization": odd}).status_code == 200


def test_what_belongs_together_goes_to_the_same_one(front):
    support.check_what_belongs_together_goes_to_the_same_one(front)


def test_a_state_of_one_is_a_state_of_all(front):
    support.check_a_state_of_one_is_a_state_of_all(front, pieces=2000)


def test_a_client_that_leaves_frees_its_rows(front):
    support.check_a_client_that_leaves_frees_its_rows(front, patience=2)


def test_a_server_that_ends_is_started_again_and_states_stay(front, model):
    kept = completion(front, "abc", max_tokens=10, seed=1, save_state=True)["choices"][0]["state"]
    said = subprocess.run(["ps", "-eo", "pid=,args="], capture_output=True, text=True, check=True).stdout
    pids = [int(line.split()[0]) for line in said.splitlines() if "ServeReplica:default:Server" in line]
    assert len(pids) == 2
    for pid in pids:
        os.kill(pid, signal.SIGKILL)
    wait(lambda: front.get("/ready").status_code == 200 and written(front) == [0, 0], "they were not started again")
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
