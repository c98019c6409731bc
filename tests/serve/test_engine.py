"""The engine behind its endpoints: answers in a crowd are answers alone, whoever joins, leaves or fails."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

import runnel
from runnel import native
from runnel.decoders import sample
from runnel.serve.engine import Limits
from tests.serve.conftest import serving
from tests.serve.support import alone, completion, parts_of

needs_native = pytest.mark.skipif(not native.available(), reason="bits are independent of the batch natively only")
PROMPTS = [f"prompt {i} " * (1 + 7 * i % 11) for i in range(16)]


def test_an_answer_is_the_library_s(client, model):
    found = completion(client, "hello", max_tokens=30, seed=4, temperature=0.7, top_p=0.9, min_p=0.01, logprobs=0)
    text, logprobs = alone(model, "hello", 30, 4, temperature=0.7, top_p=0.9, min_p=0.01)
    assert found["choices"][0]["text"] == text
    assert found["choices"][0]["logprobs"]["token_logprobs"] == logprobs
    assert found["usage"]["prompt_tokens"] == 5
    assert found["usage"]["completion_tokens"] == 30


@needs_native
def test_answers_in_a_crowd_are_answers_alone(client, model):
    def ask(i):
        drafter = ("none", "auto", "suffix", "prompt_lookup")[i % 4]
        options = {"max_tokens": 10 + 5 * (i % 5), "seed": i, "temperature": 0.8, "logprobs": 0, "drafter": drafter}
        return completion(client, PROMPTS[i], **options)["choices"][0]

    with ThreadPoolExecutor(16) as pool:
        found = list(pool.map(ask, range(16)))
    for i, choice in enumerate(found):
        text, logprobs = alone(model, PROMPTS[i], 10 + 5 * (i % 5), i, temperature=0.8)
        assert choice["text"] == text
        assert choice["logprobs"]["token_logprobs"] == logprobs


def test_without_the_native_engine_answers_are_the_same_up_to_rounding(run):
    plain = runnel.load(run).eval()
    with serving(run, weights="torch") as client, ThreadPoolExecutor(4) as pool:
        options = {"max_tokens": 12, "temperature": 0.8, "logprobs": 0}
        asked = [(PROMPTS[i], i) for i in range(4)]
        found = list(pool.map(lambda a: completion(client, a[0], seed=a[1], **options)["choices"][0], asked))
    for (prompt, seed), choice in zip(asked, found, strict=True):
        text, logprobs = alone(plain, prompt, 12, seed, temperature=0.8)
        assert choice["text"] == text
        assert choice["logprobs"]["token_logprobs"] == pytest.approx(logprobs, abs=1e-4)


def test_samples_count_their_seeds_up(client, model):
    found = completion(client, ["ab", "cde"], n=2, seed=5, max_tokens=12)["choices"]
    expected = runnel.generate(model, [list(b"ab"), list(b"cde")], 12, seed=5, n=2).tokens
    assert [choice["index"] for choice in found] == [0, 1, 2, 3]
    assert [choice["text"] for choice in found] == [bytes(t).decode("utf-8", "replace") for t in expected]


def test_a_stream_joins_to_the_answer(client):
    asked = {"prompt": "stream", "max_tokens": 40, "seed": 9, "temperature": 0.9, "logprobs": 2}
    whole = completion(client, **asked)["choices"][0]
    parts = [part["choices"][0] for part in parts_of(client, "/v1/completions", asked)]
    assert "".join(part["text"] for part in parts) == whole["text"]
    assert parts[-1]["finish_reason"] == whole["finish_reason"] == "length"
    for name in ("tokens", "token_logprobs", "top_logprobs", "text_offset"):
        assert [x for part in parts for x in part["logprobs"][name]] == whole["logprobs"][name]


def test_a_long_prompt_does_not_stall_a_stream(run):
    with serving(run, limits=Limits(chunk=32)) as client:
        gaps, started = [], threading.Event()

        def stream():
            asked = {"prompt": "x", "max_tokens": 400, "seed": 1, "stream": True, "drafter": "none"}
            with client.stream("POST", "/v1/completions", json=asked) as response:
                last = time.monotonic()
                for line in response.iter_lines():
                    if line:
                        started.set()
                        gaps.append(time.monotonic() - last)
                        last = time.monotonic()

        thread = threading.Thread(target=stream)
        thread.start()
        assert started.wait(10)
        before = len(gaps)
        completion(client, "long " * 4000, max_tokens=1)
        thread.join(60)
    assert before < 300, "the prompt came too late to say anything"
    assert len(gaps) >= 400  # every token in its own event: rounds went on while the prompt was read


def test_one_row_s_failure_is_its_own(client, model):
    """A row whose law is empty fails; the texts beside it are not touched."""
    bans = {str(token): -100 for token in range(1)}
    assert completion(client, "a", max_tokens=3, logit_bias=bans)

    def ask(i):
        return completion(client, PROMPTS[i], max_tokens=60, seed=i)["choices"][0]["text"]

    with ThreadPoolExecutor(4) as pool:
        running = [pool.submit(ask, i) for i in range(3)]
        schema = {"type": "json_schema", "json_schema": {"schema": {"type": "string", "pattern": "a{70000}"}}}
        failed = client.post("/v1/completions", json={"prompt": "b", "max_tokens": 20, "response_format": schema})
        texts = [future.result() for future in running]
    assert failed.status_code in (200, 400)
    assert texts == [alone(model, PROMPTS[i], 60, i)[0] for i in range(3)]


def test_too_much_is_refused_with_429_and_when_to_come_back(run):
    with serving(run, limits=Limits(rows=1, waiting=2)) as client, ThreadPoolExecutor(8) as pool:
        asked = {"prompt": "x", "max_tokens": 300, "drafter": "none"}
        answers = list(pool.map(lambda _: client.post("/v1/completions", json=asked), range(8)))
    statuses = [answer.status_code for answer in answers]
    assert set(statuses) == {200, 429}
    refused = next(answer for answer in answers if answer.status_code == 429)
    assert int(refused.headers["retry-after"]) >= 1
    assert refused.json()["error"]["type"] == "rate_limit_error"


def test_who_leaves_is_forgotten(client):
    asked = {"prompt": "x", "max_tokens": 30000, "stream": True, "drafter": "none"}
    with client.stream("POST", "/v1/completions", json=asked) as response:
        lines = response.iter_lines()
        next(lines)
        assert client.engine.batch.rows
    end = time.monotonic() + 10
    while client.engine.batch.rows and time.monotonic() < end:
        time.sleep(0.02)
    assert not client.engine.batch.rows
    assert not client.engine.writing


def test_a_deadline_ends_a_request(client):
    found = client.post("/v1/completions", json={"prompt": "x", "max_tokens": 30000, "timeout": 0.2})
    assert found.status_code == 408
    assert found.json()["error"]["code"] == "deadline"


def test_what_can_never_fit_is_refused_at_once(run):
    with serving(run, limits=Limits(rows=4, state_bytes=1 << 20)) as client:
        assert client.post("/v1/completions", json={"prompt": "x", "n": 5}).status_code == 400
        assert client.post("/v1/completions", json={"prompt": "x", "n": 4}).status_code == 200
    with serving(run, limits=Limits(state_bytes=1)) as client:
        found = client.post("/v1/completions", json={"prompt": "x"})
        assert (found.status_code, "bytes of states" in found.text) == (400, True)


def test_a_drained_server_finishes_what_runs(run):
    with serving(run) as client:
        asked = {"prompt": "x", "max_tokens": 500, "stream": True, "drafter": "none"}
        with client.stream("POST", "/v1/completions", json=asked) as response:
            lines = response.iter_lines()
            next(lines)
            client.engine.drain()
            assert client.get("/ready").status_code == 503
            assert client.post("/v1/completions", json={"prompt": "y"}).status_code == 429
            assert list(lines)[-2] == "data: [DONE]"


def test_rows_take_back_what_they_cannot_keep():
    from runnel.codecs.bytes import Bytes
    from runnel.rows import Row
    from runnel.stopping import StopText

    row = Row(0, 0, [1], 1, 9, frozenset(), sample.Sample(sample.Config()), StopText(Bytes(), ["xyz"]), top=2)
    law = torch.zeros(256).log_softmax(-1)
    for token in b"abx":
        row.take(token, law[None], 0, float(law[token]))
    row.back_to(1, {})
    assert (row.tokens, row.position, len(row.logprobs), len(row.top_logprobs)) == ([97], 2, 1, 1)
    for token in b"xyz":
        row.take(token, law[None], 0, float(law[token]))
    assert (row.ended, row.stop_text.text) == ("stop", b"a")


def test_times_that_are_noted_together_are_those_of_a_histogram():
    from prometheus_client import CollectorRegistry, Histogram, generate_latest

    from runnel.serve.metrics import SHORT, Times

    ours, theirs = CollectorRegistry(), CollectorRegistry()
    together = Times("waits", "Waits.", SHORT, ours)
    apart = Histogram("waits", "Waits.", buckets=SHORT, registry=theirs)
    for seconds, count in ((0.0005, 3), (0.25, 2), (99.0, 1), (0.0, 4)):
        together.note(seconds, count)
        for _ in range(count):
            apart.observe(seconds)
    expected = [line for line in generate_latest(theirs).decode().splitlines() if "created" not in line]
    assert generate_latest(ours).decode().splitlines() == expected
