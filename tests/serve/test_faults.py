"""What goes wrong at one client, or in one row, is nobody else's trouble."""

import random
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import httpx
import pytest
import torch

import runnel
from runnel.decoders.greedy import Config, Greedy
from runnel.rows import Row
from runnel.serve import answering
from runnel.serve.door import depth
from runnel.serve.engine import Engine, Limits, Size
from runnel.serve.jobs import Ended, Failed, Job, Queue, Wrote
from runnel.serve.metrics import Metrics
from runnel.serve.readings import Reading
from runnel.serve.wire import ChatRequest, CompletionRequest
from tests.serve.conftest import serving
from tests.serve.support import alone, completion, text_of, wait

JSON = {"Content-Type": "application/json"}
HEAD = (
    b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
)


def test_bodies_that_are_too_large_too_deep_or_no_text(client):
    large = b'{"prompt": "' + b"x" * (50 << 20) + b'"}'
    assert client.post("/v1/completions", content=large, headers=JSON).status_code == 413

    def chunks():
        for start in range(0, len(large), 1 << 20):
            yield large[start : start + (1 << 20)]

    with suppress(httpx.TransportError):  # the connection may be closed while the client still writes
        assert client.post("/v1/completions", content=chunks(), headers=JSON).status_code == 413
    assert client.post("/v1/completions", content=large, headers={"Content-Type": "text/plain"}).status_code == 413
    for host in ("[::", "[x]:1"):
        assert client.get("/health", headers={"Host": host}).status_code in (400, 403)
    for path in ("/v1/completions", "/v1/states", "/v1/chat/completions", "/tokenize"):
        for body in (
            b"[" * 100_000,
            b'{"a":' * 50_000,
            b'{"prompt": "\xff\xfe"}',
            b"",
            b"nothing",
            b"[]",
            b"null",
            b'"',
        ):
            found = client.post(path, content=body, headers=JSON)
            assert found.status_code == 400, (path, body[:20], found.text)
    assert client.post("/v1/states", content=b"\xff\xfe", headers={"Content-Type": "text/plain"}).status_code == 400
    assert client.post("/v1/completions", content=b"x", headers={"Content-Type": "text/plain"}).status_code == 400
    assert completion(client, "still there", max_tokens=1)


def test_depth_is_that_of_the_json_and_not_of_its_strings():
    assert [depth(body) for body in (b"[]", b'{"a": [{}]}', b'"[[[["', b'["\\"[[", []]', b"]]]]", b'"[')] == [
        1,
        3,
        0,
        2,
        0,
        0,
    ]


def address(client):
    return client.base_url.host, client.base_url.port


def test_who_connects_and_drops_leaves_nothing_behind(client, model):
    body = b'{"prompt": "x", "max_tokens": 5000, "stream": true, "drafter": "none"}'

    def drop(i):
        with socket.create_connection(address(client), timeout=10) as connection:
            request = HEAD % len(body) + body
            connection.sendall(request[: len(request) * (i % 4) // 3] if i % 4 < 3 else request)
            if i % 4 == 3:
                assert connection.recv(12) in (b"HTTP/1.1 200", b"HTTP/1.1 429")

    with ThreadPoolExecutor(16) as pool:
        list(pool.map(drop, range(200)))
    end = time.monotonic() + 20
    while (client.engine.writing or client.engine.reading or len(client.engine.queue)) and time.monotonic() < end:
        time.sleep(0.05)
    assert not client.engine.writing
    assert not client.engine.batch.rows
    assert text_of(client, "after", max_tokens=10, seed=1) == alone(model, "after", 10, 1)[0]


def test_a_client_that_hardly_reads_keeps_nobody_waiting_and_is_given_up(client, monkeypatch):
    monkeypatch.setattr(answering, "UNREAD", 200)
    body = b'{"prompt": "x", "max_tokens": 9000, "n": 8, "stream": true, "logprobs": 20}'
    with socket.create_connection(address(client), timeout=20) as connection:
        connection.sendall(HEAD % len(body) + body)
        assert connection.recv(12) == b"HTTP/1.1 200"
        for _ in range(3):
            assert connection.recv(1)
            began = time.monotonic()
            completion(client, "quick", max_tokens=5)
            assert time.monotonic() - began < 10
        wait(lambda: not client.engine.batch.rows, "it is still being written for")
        end = b""
        while (piece := connection.recv(1 << 16)) and not end.endswith(b"0\r\n\r\n"):
            end = end[-500:] + piece
    assert b"the client is slow: 200 parts of the answer wait to be read" in end


class Broken(Greedy):
    """A decoder that fails in the middle of a text."""

    reads_text = True

    def scores(self, logits, seeds, positions, texts=()):
        if len(texts[0].written) == 5:
            raise ValueError("no token is left")
        return logits


def test_a_row_that_fails_takes_nobody_with_it(model):
    engine = Engine(model, Limits(), Metrics())
    events = {name: [] for name in ("good", "bad", "other")}
    done = {name: threading.Event() for name in events}

    def job(name, decoder, count):
        def tell(event):
            events[name].append(event)
            if isinstance(event, Failed) or sum(isinstance(e, Ended) for e in events[name]) == count:
                done[name].set()

        prompt = list(b"a prompt")
        rows = [Row(-1, 0, prompt, len(prompt), 20, frozenset(), decoder) for _ in range(count)]
        return Job(name, "", Reading(prompt[:-1], model.init_state(1)), tell, rows)

    engine.start()
    try:
        for name, decoder, count in (("good", Greedy, 1), ("bad", Broken, 2), ("other", Greedy, 1)):
            engine.submit(job(name, decoder(Config()), count))
        assert all(event.wait(20) for event in done.values())
        assert "no token is left" in str(events["bad"][-1].error)
        assert not engine.writing
    finally:
        engine.stop()
    texts = [[t for e in events[name] if isinstance(e, Wrote) for t in e.tokens] for name in ("good", "other")]
    assert texts[0] == texts[1] == list(_greedy(model))
    assert sum(len(e.tokens) for e in events["bad"] if isinstance(e, Wrote)) == 10


def _greedy(model):
    return runnel.generate(model, [list(b"a prompt")], 20, decoder="greedy").tokens[0]


def test_keys_take_turns_and_so_do_their_users(model):
    queue = Queue()
    names = ["a1", "a1", "a1", "a2", "b1", "c1"]
    jobs = [Job(name[0], name[1], Reading([1], model.init_state(1)), print) for name in names]
    for job in jobs:
        queue.push(job)
    assert (len(queue), queue.of("a"), queue.of("d")) == (6, 4, 0)
    order = [queue.pop(lambda _: True) for _ in range(6)]
    assert [job.key + job.user for job in order] == ["a1", "b1", "c1", "a2", "a1", "a1"]
    assert queue.pop(lambda _: True) is None
    queue.push(jobs[0])
    assert queue.pop(lambda _: False) is None
    assert queue.drop(lambda job: job is jobs[0]) == [jobs[0]]
    assert len(queue) == 0


def test_the_size_of_a_state_is_measured(model):
    size = Size.of(model)
    with torch.no_grad():
        for length in (100, 3000):
            state = model(torch.zeros(1, length, dtype=torch.long))[1]
            assert size.at(length) == pytest.approx(state.nbytes, rel=0.05)


def test_memory_returns(run):
    with serving(run) as client:

        def burst():
            with ThreadPoolExecutor(8) as pool:
                list(pool.map(lambda i: text_of(client, f"{i} " * 200, max_tokens=20), range(24)))
            client.service.prefixes.settle()

        burst()
        engine = client.engine
        assert (engine.batch.state, engine.writing, engine.newest, engine.reading) == (None, {}, {}, [])
        assert len(engine.queue) == 0


def test_no_body_is_a_server_s_fault(client):
    """Bodies near to those that are meant: whatever is asked, the answer is not a 5xx."""
    rng = random.Random(0)
    odd = [None, True, -1, 0, 1, 2.5, 1e308, 2**63, "", "x", "\u0000", "none", [], ["a"], [1], [[1, 2]], {}, {"a": 1}]
    names = list(CompletionRequest.model_fields)
    chat_names = list(ChatRequest.model_fields)
    for i in range(300):
        chat = i % 3 == 0
        body = {"messages": [{"role": "user", "content": "x"}]} if chat else {"prompt": "x"}
        body |= {rng.choice(chat_names if chat else names): rng.choice(odd) for _ in range(rng.randint(1, 4))}
        if body.get("max_tokens") is None:
            body["max_tokens"] = 2
        found = client.post(f"/v1/{'chat/' * chat}completions", json=body)
        assert found.status_code < 500, (body, found.text)
    for _ in range(100):
        body = {rng.choice(["input", "name", "state", "timeout", "model"]): rng.choice(odd) for _ in range(3)}
        for path in ("/v1/states", "/v1/embeddings", "/tokenize", "/detokenize"):
            found = client.post(path, json=body)
            assert found.status_code < 500, (path, body, found.text)
