"""A server as it is run, in a process of its own, and what clients, disks and clocks do to it.

All the while somebody else is served: every answer is the one that is meant, and none is late. What a fault has taken
of memory is given back.
"""

import os
import shutil
import socket
import subprocess
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from types import SimpleNamespace

import httpx
import pytest

from tests.serve.support import alone, process_of, text_of

JSON, TEXT = {"Content-Type": "application/json"}, {"Content-Type": "text/plain"}
FILE = {"Content-Type": "application/octet-stream"}
HEAD = (
    b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\nContent-Type: application/json\r\n\r\n"
)
LATE = 20.0
"""Seconds that nobody may wait, on a machine that does much else."""
ROOM = 48 << 20
"""Bytes by which a process may stay larger than it was: what its allocators keep."""


def memory_of(pid):
    status = Path(f"/proc/{pid}/status")
    if not status.exists():
        pytest.skip("needs /proc, which says how much memory a process has")
    return next(int(line.split()[1]) << 10 for line in status.read_text().splitlines() if line.startswith("VmRSS"))


@contextmanager
def others_are_served(address, model):
    """Somebody who asks for little, again and again."""
    expected = [alone(model, "others", 8, seed)[0] for seed in range(8)]
    waits, over = [], threading.Event()

    def ask():
        with httpx.Client(base_url=address, timeout=60) as client:
            while not over.is_set():
                begun, seed = time.monotonic(), len(waits) % 8
                assert text_of(client, "others", max_tokens=8, seed=seed) == expected[seed]
                waits.append(time.monotonic() - begun)
                over.wait(0.02)

    with ThreadPoolExecutor(1) as pool:
        asking = pool.submit(ask)
        try:
            yield
        finally:
            over.set()
        asking.result()
    assert waits
    assert max(waits) < LATE


@pytest.fixture(scope="module")
def server(run, tmp_path_factory):
    """A server that has been in use for a moment."""
    with (
        process_of(run, tmp_path_factory.mktemp("states"), "--memory", "0") as (process, address),
        httpx.Client(base_url=address, timeout=60) as client,
    ):
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(lambda i: text_of(client, "warm" * 50, max_tokens=40, seed=i), range(32)))
        yield SimpleNamespace(client=client, pid=process.pid, place=(client.base_url.host, client.base_url.port))


@pytest.fixture(autouse=True)
def nobody_else_notices(request, model):
    if "server" not in request.fixturenames:
        yield
        return
    server = request.getfixturevalue("server")
    before = memory_of(server.pid)
    with others_are_served(str(server.client.base_url), model):
        yield
    end = time.monotonic() + 20
    while memory_of(server.pid) > before + ROOM:
        assert time.monotonic() < end, f"memory stays: {memory_of(server.pid) >> 20} MB, {before >> 20} MB before"
        time.sleep(0.1)


def test_a_prompt_of_fifty_megabytes(server):
    large = b'{"prompt": "' + b"x" * (50 << 20) + b'"}'

    def chunks():
        for start in range(0, len(large), 1 << 20):
            yield large[start : start + (1 << 20)]

    for content in (large, chunks(), large, chunks()):
        with suppress(httpx.TransportError):  # the connection may be closed while the client still writes
            assert server.client.post("/v1/completions", content=content, headers=JSON).status_code == 413


@pytest.mark.parametrize(
    "path", ["/v1/completions", "/v1/chat/completions", "/v1/states", "/v1/embeddings", "/tokenize"]
)
def test_json_that_is_too_deep_and_text_that_is_none(server, path):
    deep = [b"[" * 3_000_000, b'{"a":' * 1_000_000, b'{"prompt": ' + b"[" * 33 + b"]" * 33 + b"}"]
    for body in (
        *deep,
        b'{"prompt": "\xff\xfe"}',
        b'{"input": "\xc3"}',
        b'{"text": "\\ud800"}',
        b"\xef\xbb\xbf{}",
        b"\0",
    ):
        found = server.client.post(path, content=body, headers=JSON)
        assert found.status_code == 400, (path, body[:20], found.text)
    if path == "/v1/states":
        for body in (b"\xff\xfe", b"a text " * 1000 + b"\xc3"):
            assert server.client.post(path, content=body, headers=TEXT).status_code == 400


def test_a_thousand_connect_and_drop(server):
    body = b'{"prompt": "x", "max_tokens": 20000, "stream": true, "drafter": "none"}'
    asked = HEAD % len(body) + body

    def drop(i):
        with socket.create_connection(server.place, timeout=30) as connection:
            connection.sendall(asked[: len(asked) * (i % 4) // 3] if i % 4 < 3 else asked)
            if i % 8 == 7:
                assert connection.recv(12) in (b"HTTP/1.1 200", b"HTTP/1.1 429")

    with ThreadPoolExecutor(16) as pool:
        list(pool.map(drop, range(1000)))
    end = time.monotonic() + 60
    while "runnel_batch_rows 0.0" not in (told := server.client.get("/metrics").text) or "jobs 0.0" not in told:
        assert time.monotonic() < end, "somebody who has left is still being written for"
        time.sleep(0.1)


def test_who_reads_a_byte_a_second(server):
    body = b'{"prompt": "x", "max_tokens": 4000, "stream": true, "logprobs": 20, "drafter": "none"}'
    with socket.create_connection(server.place, timeout=30) as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.sendall(HEAD % len(body) + body)
        for _ in range(5):
            assert connection.recv(1)
            time.sleep(1)


def test_a_state_file_that_was_poisoned(server, run):
    made = server.client.post("/v1/states", json={"input": "a text that is kept"}).json()
    file = server.client.get(f"/v1/states/{made['id']}/file").content
    for place in (8, 100, len(file) // 2, len(file) - 5):
        poisoned = file[:place] + bytes([file[place] ^ 1]) + file[place + 1 :]
        assert server.client.post("/v1/states", content=poisoned, headers=FILE).status_code == 400
    huge = (1 << 60).to_bytes(8, "little")
    for poisoned in (huge + file[8:], file[:-1], file + b"x", b"", os.urandom(len(file))):
        assert server.client.post("/v1/states", content=poisoned, headers=FILE).status_code == 400
    command = Path(f"/proc/{server.pid}/cmdline").read_text().split("\0")
    (body,) = (Path(command[command.index("--states") + 1]) / "bodies").glob(f"{made['id']}*")
    body.write_bytes(file[: len(file) // 2] + b"\xff" * 64 + file[len(file) // 2 + 64 :])  # behind the server's back
    asked = {"prompt": "x", "state": made["id"], "max_tokens": 2}
    assert server.client.post("/v1/completions", json=asked).status_code == 410
    assert server.client.post("/v1/completions", json=asked).status_code == 404


def test_a_disk_that_is_full(run, tmp_path, model):
    """The states lie on a disk of a megabyte and a half, which only the server sees."""
    small = ["unshare", "-rm", "sh", "-c", f'mount -t tmpfs -o size=1500k tmpfs "{tmp_path}" && exec "$0" "$@"']
    unshared = shutil.which("unshare") and subprocess.run([*small, "true"], capture_output=True, check=False)
    if not unshared or unshared.returncode:
        pytest.skip("needs unshare and the right to mount, for a disk that fills up")
    with (
        process_of(run, tmp_path, before=small) as (_, address),
        httpx.Client(base_url=address, timeout=60) as client,
        others_are_served(address, model),
    ):
        kept: list[tuple[int, str]] = []
        for i in range(500):
            found = client.post("/v1/states", json={"input": f"number {i} " * 20})
            if found.status_code != 201:
                break
            kept.append((i, found.json()["id"]))
        assert (found.status_code, found.json()["error"]["code"]) == (507, "disk_full")
        assert client.get("/health").status_code == 200
        for i, identity in kept[::4]:
            expected = alone(model, f"number {i} " * 20 + "!", 2, 1)[0]
            assert text_of(client, "!", state=identity, max_tokens=2, seed=1) == expected
        for _, identity in kept:
            assert client.delete(f"/v1/states/{identity}").status_code == 200
        assert client.post("/v1/states", json={"input": "there is room again"}).status_code == 201


JUMPING = """
import random, time
now, chance = time.time, random.Random(0)
time.time = lambda: now() + chance.choice([0.0, -1e9, 1e9, -3600.0, 3600.0])
from runnel.cli import main
main()
"""


def test_a_clock_that_jumps(run, tmp_path, model):
    with (
        process_of(run, tmp_path, program=("-c", JUMPING)) as (_, address),
        httpx.Client(base_url=address, timeout=60) as client,
        others_are_served(address, model),
    ):
        made = {client.post("/v1/states", json={"input": f"text {i}"}).json()["id"] for i in range(30)}
        listed, after = [], None
        while True:
            page = client.get("/v1/states", params={"limit": 7, **({"after": after} if after else {})}).json()
            listed += [entry["id"] for entry in page["data"]]
            if not page["has_more"]:
                break
            after = listed[-1]
        assert sorted(listed) == sorted(made)
        assert client.post("/v1/completions", json={"prompt": "x", "max_tokens": 20, "timeout": 30}).status_code == 200
        assert (
            client.post("/v1/completions", json={"prompt": "x", "max_tokens": 30000, "timeout": 0.3}).status_code == 408
        )
        for state in made:
            assert client.delete(f"/v1/states/{state}").status_code == 200
