"""What the tests of serving ask in few words."""

import json
import os
import subprocess
import sys
import time
from contextlib import contextmanager

import httpx
import pytest

import runnel


def completion(client, prompt, **options):
    """The answer to a request that must succeed."""
    found = client.post("/v1/completions", json={"prompt": prompt, **options})
    assert found.status_code == 200, found.text
    return found.json()


def text_of(client, prompt, **options):
    return completion(client, prompt, **options)["choices"][0]["text"]


def parts_of(client, path, asked):
    """The parts of a stream, which must end as streams do."""
    with client.stream("POST", path, json={**asked, "stream": True}) as response:
        assert response.status_code == 200, response.read()
        lines = [line.removeprefix("data: ") for line in response.iter_lines() if line]
    assert lines[-1] == "[DONE]"
    return [json.loads(line) for line in lines[:-1]]


def alone(model, prompt, count, seed, **options):
    """The text and the log-probabilities that the library gives for one request and nobody else."""
    found = runnel.generate(model, [list(prompt.encode())], count, seed=seed, **options)
    return bytes(found.tokens[0]).decode("utf-8", "replace"), found.logprobs[0]


@contextmanager
def process_of(run, states, *options, before=(), program=("-m", "runnel")):
    """A server in a process of its own, and its address. before: a command that runs another. program: of Python."""
    command = [*before, sys.executable, *program, "serve", str(run), "--port", "0", "--states", str(states), *options]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen([*command, "--threads", "1"], stdout=subprocess.PIPE, text=True, env=environment)
    with process.stdout:
        try:
            said = process.stdout.readline()
            assert said, "the server did not start"
            yield process, said.split()[-1]
        finally:
            process.kill()
            process.wait()


# ---- what holds of several servers that look like one ---------------------------------------------------------------


def wait(ready, what, seconds=200):
    end = time.monotonic() + seconds
    while not ready():
        assert time.monotonic() < end, what
        time.sleep(0.1)


def metric(client, name):
    """A number that each server tells."""
    lines = [line for line in client.get("/metrics").text.splitlines() if line.startswith(name)]
    return [float(line.split()[1]) for line in lines]


def written(client):
    return metric(client, "runnel_tokens_written_total")


def check_answers_are_those_of_one_server(client, model):
    for i in range(8):
        assert text_of(client, f"number {i}", max_tokens=10, seed=i) == alone(model, f"number {i}", 10, i)[0]
    assert len(written(client)) == 2 and all(written(client))  # both have had some
    parts = parts_of(client, "/v1/completions", {"prompt": "abc", "max_tokens": 10, "seed": 1})
    assert "".join(part["choices"][0]["text"] for part in parts) == alone(model, "abc", 10, 1)[0]
    assert client.get("/").headers["content-security-policy"].startswith("default-src 'none'")
    assert client.post("/v1/completions", json={"prompt": 3}).status_code == 400


def check_what_belongs_together_goes_to_the_same_one(client):
    before = written(client)
    for _ in range(6):
        text_of(client, "always the same", max_tokens=10)
    gained = sorted(b - a for a, b in zip(before, written(client), strict=True))
    assert gained == [0, 60]


def check_a_state_of_one_is_a_state_of_all(client, pieces):
    """pieces: that a text is streamed in."""
    first = completion(client, "abc", max_tokens=10, seed=1, save_state=True)["choices"][0]
    text = b"abc" + first["text"].encode()
    kept = client.post("/v1/states", content=(text for _ in range(pieces)), headers={"Content-Type": "text/plain"})
    assert kept.status_code == 201
    assert kept.json()["tokens"] == pieces * len(text)
    known = [state["id"] for state in client.get("/v1/states").json()["data"]]
    assert known.count(first["state"]) == known.count(kept.json()["id"]) == 1
    for i in range(4):  # whoever has it, all can go on from it: these belong to their state
        assert client.get(f"/v1/states/{first['state']}").json()["tokens"] == 13
        assert text_of(client, f"{i}", max_tokens=5, seed=2, state=first["state"])
    assert client.delete(f"/v1/states/{first['state']}").json()["deleted"]
    for _ in range(4):
        assert client.get(f"/v1/states/{first['state']}").status_code == 404


def check_a_client_that_leaves_frees_its_rows(client, patience):
    """patience: seconds after which it leaves."""
    for stream in (False, True):
        asked = {"prompt": "abc", "max_tokens": 30_000, "stream": stream}
        with pytest.raises(httpx.ReadTimeout), client.stream("POST", "/v1/completions", json=asked, timeout=patience):
            assert stream and sum(metric(client, "runnel_batch_rows")) == 1
            raise httpx.ReadTimeout("it leaves")
        wait(lambda: not sum(metric(client, "runnel_batch_rows")), "its row is still being written")
