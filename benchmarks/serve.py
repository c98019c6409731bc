"""Serving under load: streams side by side against one alone, every answer held against the one that it gets alone.

    python benchmarks/serve.py runs/demo --streams 64 --seconds 600
    python benchmarks/serve.py runs/demo --document 100000 --parked 10000 --seconds 30

Starts `runnel serve` on this machine, and reads its memory from /proc where there is one. Needs `runnel[serve]` and
httpx.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

import runnel
from runnel import codecs
from runnel.serve.server import model_of

PROMPTS = ("def main(", "import os\n", "class Stream:\n    ", "# A small state,", "for i in range(10):\n    ")
TOKENS = 128
CHECKED = 200
"""Answers that are written once more, alone."""


@dataclass
class Load:
    """What clients saw. gaps: seconds between the events of a stream. answers: (prompt, seed, text)."""

    first: list[float] = field(default_factory=list)
    gaps: list[float] = field(default_factory=list)
    answers: list[tuple[str, int, str]] = field(default_factory=list)
    tokens: int = 0
    errors: int = 0
    seconds: float = 0.0
    memory: list[int] = field(default_factory=list)

    def row(self) -> dict[str, Any]:
        gaps = sorted(self.gaps)
        quarter = max(1, len(self.memory) // 4)
        return {
            "answers": len(self.answers),
            "errors": self.errors,
            "tokens_per_second": round(self.tokens / self.seconds, 1),
            "first_token_median_ms": round(1e3 * statistics.median(self.first), 1),
            "gap_median_ms": round(1e3 * statistics.median(gaps), 2),
            "gap_p99_ms": round(1e3 * gaps[int(0.99 * len(gaps))], 2),
            "gap_p99_over_median": round(gaps[int(0.99 * len(gaps))] / statistics.median(gaps), 1),
            "memory_mb_early": max(self.memory[:quarter]) >> 20 if self.memory else None,
            "memory_mb_late": max(self.memory[-quarter:]) >> 20 if self.memory else None,
        }


@contextmanager
def server(run: Path, folder: str, *options: str) -> Iterator[tuple[str, int]]:
    """The address and the process of a server."""
    command = [sys.executable, "-m", "runnel", "serve", str(run), "--port", "0", "--states", folder, "--json", *options]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        said = ""
        try:
            while not said.endswith("}\n"):
                line = process.stdout.readline()
                if not line:
                    raise RuntimeError("the server did not start")
                said += line
            yield json.loads(said)["address"], process.pid
        finally:
            process.terminate()
            process.wait(60)


def memory_of(pid: int) -> int:
    status = Path(f"/proc/{pid}/status")
    if not status.exists():
        return 0
    (line,) = [line for line in status.read_text().splitlines() if line.startswith("VmRSS")]
    return int(line.split()[1]) << 10


async def stream(client: httpx.AsyncClient, number: int, load: Load, drafter: str) -> None:
    """One answer, as it comes."""
    prompt, begun = PROMPTS[number % len(PROMPTS)], time.perf_counter()
    asked = {"prompt": prompt, "seed": number, "max_tokens": TOKENS, "temperature": 0.8, "stream": True}
    last, text, reason = begun, [], None
    try:
        async with client.stream("POST", "/v1/completions", json={**asked, "drafter": drafter}) as response:
            async for line in response.aiter_lines():
                if not line.startswith("data: {"):
                    continue
                now = time.perf_counter()
                (load.gaps if text else load.first).append(now - last)
                last = now
                choice = json.loads(line.removeprefix("data: "))["choices"][0]
                text.append(choice["text"])
                reason = choice["finish_reason"] or reason
    except (httpx.HTTPError, KeyError):
        reason = None
    if reason is None:
        load.errors += 1
    else:
        load.tokens += TOKENS
        load.answers.append((prompt, number, "".join(text)))


async def loaded(address: str, pid: int, streams: int, seconds: float, drafter: str) -> Load:
    """So many streams at any time."""
    load, numbers, begun = Load(), iter(range(10**9)), time.perf_counter()
    limits = httpx.Limits(max_connections=streams)
    async with httpx.AsyncClient(base_url=address, timeout=120, limits=limits) as client:

        async def one_after_another() -> None:
            while time.perf_counter() - begun < seconds:
                await stream(client, next(numbers), load, drafter)

        async def watch() -> None:
            while True:
                load.memory.append(memory_of(pid))
                await asyncio.sleep(1)

        watching = asyncio.create_task(watch())
        await asyncio.gather(*[one_after_another() for _ in range(streams)])
        watching.cancel()
    load.seconds = time.perf_counter() - begun
    return load


def crossed(run: Path, load: Load) -> int:
    """How many of the answers are not the ones that their requests get alone."""
    model, codec = model_of(run, None), codecs.load(run)
    step = max(1, len(load.answers) // CHECKED)
    wrong = 0
    for prompt, seed, text in load.answers[::step]:
        alone = runnel.generate(model, [codec.encode(prompt)], TOKENS, seed=seed, temperature=0.8, codec=codec)
        wrong += alone.texts[0] != text
    return wrong


def document(address: str, tokens: int) -> dict[str, Any]:
    """A long text, read and then gone on from."""
    with httpx.Client(base_url=address, timeout=3600) as client:
        text = "".join(f"line {i}: a small state, a long stream\n" for i in range(tokens // 30))[:tokens]
        begun = time.perf_counter()
        headers = {"Content-Type": "text/plain"}
        made = client.post("/v1/states", content=text.encode(), headers=headers).raise_for_status().json()
        read = time.perf_counter() - begun
        times = []
        for seed in range(5):
            begun = time.perf_counter()
            asked = {"prompt": "\n", "state": made["id"], "max_tokens": 1, "seed": seed}
            client.post("/v1/completions", json=asked).raise_for_status()
            times.append(time.perf_counter() - begun)
    first = statistics.median(times)
    return {"tokens": made["tokens"], "bytes": made["bytes"], "read_seconds": round(read, 3),
            "first_token_ms": round(1e3 * first, 1), "ratio": round(read / first)}  # fmt: skip


def parked(address: str, pid: int, count: int) -> dict[str, Any]:
    """Conversations that are kept, most of them on disk; some of them are gone on with."""
    with httpx.Client(base_url=address, timeout=120) as client:
        before, begun = memory_of(pid), time.perf_counter()
        ids = [client.post("/v1/states", json={"input": f"user: I am {i}"}).json()["id"] for i in range(count)]
        seconds = time.perf_counter() - begun
        times = []
        for identity in ids[:: max(1, count // 100)]:
            begun = time.perf_counter()
            client.post("/v1/completions", json={"prompt": "!", "state": identity, "max_tokens": 1}).raise_for_status()
            times.append(time.perf_counter() - begun)
        return {"count": count, "per_second": round(count / seconds, 1), "memory_mb_before": before >> 20,
                "memory_mb": memory_of(pid) >> 20,
                "resume_median_ms": round(1e3 * statistics.median(times), 1)}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("--streams", type=int, default=64)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--drafter", default="none")
    parser.add_argument("--document", type=int, default=0, help="tokens of a document that is read and resumed")
    parser.add_argument("--parked", type=int, default=0, help="conversations that are kept")
    options = parser.parse_args()
    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder, server(options.run, folder, "--memory", "200") as (address, pid):
        alone = asyncio.run(loaded(address, pid, 1, min(30, options.seconds), options.drafter))
        together = asyncio.run(loaded(address, pid, options.streams, options.seconds, options.drafter))
        found["alone"], found[f"{options.streams} streams"] = alone.row(), together.row()
        found["speedup"] = round((together.tokens / together.seconds) / (alone.tokens / alone.seconds), 2)
        found["crossed"] = crossed(options.run, together)
        if options.document:
            found["document"] = document(address, options.document)
        if options.parked:
            found["parked"] = parked(address, pid, options.parked)
    print(json.dumps(found, indent=2))


if __name__ == "__main__":
    main()
