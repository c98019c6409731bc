"""Streams of completions from a server, by a client that takes little time itself.

On a machine of two cores a client that parses every part as it comes takes as much time as the server. This one notes
when bytes came, and reads them once the stream has ended. Every stream has a connection of its own, which is kept.
"""

from __future__ import annotations

import asyncio
import json
import statistics
import sys
import time
from array import array
from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

Request = dict[str, Any]
PATH = "/v1/completions"
PATIENCE = 120
"""Seconds after which an answer that has not ended counts as an error."""


class Connection(asyncio.Protocol):
    """A connection over which one answer comes after another, in chunks. came: (bytes so far, when)."""

    def connection_made(self, transport: Any) -> None:
        self.transport, self.ended = transport, None

    def _begin(self) -> None:
        self.raw, self.came = bytearray(), list[tuple[int, float]]()
        self.ended = asyncio.get_running_loop().create_future()

    def data_received(self, data: bytes) -> None:
        self.raw += data
        self.came.append((len(self.raw), time.perf_counter()))
        if self.raw.endswith(b"0\r\n\r\n") and not self.ended.done():
            self.ended.set_result(None)

    def connection_lost(self, error: Exception | None) -> None:
        if self.ended is not None and not self.ended.done():
            self.ended.set_exception(ConnectionError("the server closed the connection"))

    async def answer(self, asked: Request) -> Answer:
        """ValueError for what is no answer, TimeoutError for what does not end."""
        self._begin()
        body, begun = json.dumps({**asked, "stream": True}).encode(), time.perf_counter()
        head = f"POST {PATH} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        self.transport.write(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
        await asyncio.wait_for(self.ended, PATIENCE)
        return _read(bytes(self.raw), self.came, begun)


@dataclass(frozen=True)
class Answer:
    """text: the whole of it. times: seconds from the request to each part that has text."""

    text: str
    reason: str
    times: list[float]


def _read(raw: bytes, came: Sequence[tuple[int, float]], begun: float) -> Answer:
    head, _, _ = raw.partition(b"\r\n\r\n")
    if not head.startswith(b"HTTP/1.1 200"):
        raise ValueError(raw[:500].decode(errors="replace"))
    events, times, at, ends = list[str](), list[float](), len(head) + 4, [end for end, _ in came]
    while size := int(raw[at : (line := raw.index(b"\r\n", at))], 16):
        chunk, at = raw[line + 2 : line + 2 + size].decode(), line + 2 + size + 2
        told = [event.removeprefix("data: ") for event in chunk.split("\n\n") if event.startswith("data: {")]
        events += told
        times += [came[bisect_left(ends, at)][1] - begun] * len(told)
    parts = [part["choices"][0] for part in json.loads(f"[{','.join(events)}]")]
    reasons = [reason for part in parts if (reason := part.get("finish_reason")) is not None]
    if len(reasons) != 1:
        raise ValueError(f"a stream must end once; got {reasons} and {raw[-200:].decode(errors='replace')}")
    spoken = [when for part, when in zip(parts, times, strict=True) if part["text"]]
    return Answer("".join(part["text"] for part in parts), reasons[0], spoken)


@dataclass
class Load:
    """What clients saw. first: seconds to the first text. gaps: between the parts of a stream. answers: how often each
    request was answered by which text. memory: (seconds, bytes of the server) as time went on.
    """

    first: array[float] = field(default_factory=lambda: array("f"))
    gaps: array[float] = field(default_factory=lambda: array("f"))
    answers: dict[int, Counter[str]] = field(default_factory=dict)
    tokens: int = 0
    errors: list[str] = field(default_factory=list)
    seconds: float = 0.0
    memory: list[tuple[float, int]] = field(default_factory=list)

    def note(self, number: int, asked: Request, answer: Answer) -> None:
        if answer.reason != "length":
            raise ValueError(f"an answer must be as long as it was asked for; it ended by {answer.reason}")
        self.first.append(answer.times[0])
        self.gaps.extend(b - a for a, b in zip(answer.times, answer.times[1:], strict=False))
        self.answers.setdefault(number, Counter())[answer.text] += 1
        self.tokens += asked["max_tokens"]

    @property
    def rate(self) -> float:
        return self.tokens / self.seconds

    @property
    def count(self) -> int:
        return sum(texts.total() for texts in self.answers.values())

    def memory_at(self, second: float) -> int:
        """Bytes of the server at the sample nearest to this second."""
        return min(self.memory, key=lambda sample: abs(sample[0] - second))[1]

    def row(self) -> dict[str, Any]:
        """What is told of it."""
        counts = {"answers": self.count, "errors": len(self.errors), "seconds": round(self.seconds, 1)}
        if not self.gaps:
            return {**counts, "tokens_per_second": 0.0}
        gaps = sorted(self.gaps)
        median, late = statistics.median(gaps), gaps[int(0.99 * len(gaps))]
        return {
            **counts,
            "tokens_per_second": round(self.rate, 1),
            "first_token_median_ms": round(1e3 * statistics.median(self.first), 1),
            "gap_median_ms": round(1e3 * median, 2),
            "gap_p99_ms": round(1e3 * late, 2),
            "gap_p99_over_median": round(late / median, 1) if median else None,
        }


async def load(
    address: str, requests: Sequence[Request], streams: int, seconds: float, memory: Callable[[], int], most: int
) -> Load:
    """So many streams at any time, for so long or until `most` answers; requests come in turn, again and again."""
    found, begun, where, numbers = Load(), time.perf_counter(), urlsplit(address), iter(range(most))

    async def connect() -> Connection:
        made = await asyncio.get_running_loop().create_connection(Connection, where.hostname, where.port)
        return made[1]

    async def one_after_another() -> None:
        connection = await connect()
        for number in numbers:
            if time.perf_counter() - begun >= seconds:
                break
            which = number % len(requests)
            try:
                found.note(which, requests[which], await connection.answer(requests[which]))
            except (OSError, ValueError, LookupError) as error:
                found.errors.append(repr(error))
                connection.transport.close()
                connection = await connect()
        connection.transport.close()

    async def watch() -> None:
        while True:
            passed = time.perf_counter() - begun
            found.memory.append((passed, memory()))
            if len(found.memory) % 15 == 0:
                said = f"{streams} streams, {passed:.0f} s: {found.count} answers, {found.tokens / passed:.0f} tokens/s"
                print(f"{said}, {len(found.errors)} errors", file=sys.stderr, flush=True)
            await asyncio.sleep(1)

    watching = asyncio.create_task(watch())
    try:
        await asyncio.gather(*[one_after_another() for _ in range(streams)])
    finally:
        watching.cancel()
    found.seconds = time.perf_counter() - begun
    found.memory.append((found.seconds, memory()))
    return found
