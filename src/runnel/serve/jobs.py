"""Jobs: what one request asks of the engine, what it is told in return, and the queue in which jobs wait."""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from runnel.rows import Row
from runnel.serve.readings import Reading
from runnel.state import Place, State

OCTAVE = 16
"""Between a length and its double about so many states of a text are kept."""


def distance(at: int, stride: int) -> int:
    """How far apart states are kept after `at` tokens: the stride times a power of two."""
    return stride << max(0, (at // (OCTAVE * stride)).bit_length() - 1)


class Read(NamedTuple):
    """The text was read."""

    reading: Reading


class Wrote(NamedTuple):
    """A row of the job gained tokens; all but the last were drafted. tops: empty unless they were asked for."""

    row: int
    tokens: list[int]
    logprobs: list[float]
    tops: list[dict[int, float]]


class Ended(NamedTuple):
    """A row is done: "eos", "stop" or "length". place: its state, which has read all of it but the newest token."""

    row: int
    reason: str
    place: Place


class Failed(NamedTuple):
    """Nothing more comes."""

    error: BaseException


Told = Read | Wrote | Ended
Event = Told | Failed


class Busy(Exception):
    """Too much is waiting. seconds: when to try again."""

    def __init__(self, message: str, seconds: float) -> None:
        super().__init__(message)
        self.seconds = max(1, math.ceil(seconds))


class Late(Exception):
    """The deadline of a request has passed."""


def at_once(function: Callable[..., None], *arguments: Any) -> None:
    """Call in the thread that is here."""
    function(*arguments)


@dataclass(eq=False)
class Job:
    """reading: the text before what is written. rows: the texts that are written after it; none only to read.

    key, user: whose turn it takes in the queue. tell: called with every event. post: has something called in the thread
    where `tell` is to be called; by itself that is the engine's, which must not be kept waiting. deadline: by
    `time.monotonic`. keep(at, state): called every `stride` tokens of the text, ever more rarely in a long one, and at
    its end, for whoever reads the same later; 0 for never. bytes: what its states may come to, at most.
    """

    key: str
    user: str
    reading: Reading
    tell: Callable[[Event], None]
    rows: list[Row] = field(default_factory=list)
    deadline: float = math.inf
    keep: Callable[[int, State], None] | None = None
    stride: int = 0
    bytes: int = 0
    cancelled: bool = False
    post: Callable[..., Any] = at_once
    queued: float = field(default_factory=time.monotonic)

    @property
    def width(self) -> int:
        """Rows that it takes in the batch."""
        return max(1, len(self.rows))

    @property
    def to_stop(self) -> int:
        """Tokens until the next state that is kept."""
        if not self.stride:
            return self.reading.left
        apart = distance(self.reading.at, self.stride)
        return min(self.reading.left, apart - self.reading.at % apart)

    @property
    def stops(self) -> bool:
        """Whether the state is one that is kept."""
        at = self.reading.at
        return self.stride > 0 and (not self.reading.left or at % distance(at, self.stride) == 0)

    def cancel(self) -> None:
        """Nobody waits for it any more: it is dropped before the next round."""
        self.cancelled = True


class Queue:
    """Jobs that wait. Keys take turns, and the users of a key among themselves: who asks for much waits for himself."""

    def __init__(self) -> None:
        self._waiting: dict[str, dict[str, deque[Job]]] = {}  # by key, then by user; whose turn it is comes first

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def __iter__(self) -> Iterator[Job]:
        return (job for users in self._waiting.values() for own in users.values() for job in own)

    def of(self, key: str) -> int:
        """How many jobs of a key wait."""
        return sum(map(len, self._waiting.get(key, {}).values()))

    def push(self, job: Job) -> None:
        self._waiting.setdefault(job.key, {}).setdefault(job.user, deque()).append(job)

    def pop(self, fits: Callable[[Job], bool]) -> Job | None:
        """The job whose turn it is; None while it does not fit. Nobody overtakes it, so that it comes to its turn."""
        if not self._waiting:
            return None
        key, users = next(iter(self._waiting.items()))
        user, own = next(iter(users.items()))
        if not fits(own[0]):
            return None
        del self._waiting[key], users[user]
        job = own.popleft()
        if own:
            users[user] = own  # behind all others
        if users:
            self._waiting[key] = users
        return job

    def drop(self, unwanted: Callable[[Job], bool]) -> list[Job]:
        """Take out these jobs."""
        dropped = [job for job in self if unwanted(job)]
        for job in dropped:
            users = self._waiting[job.key]
            users[job.user].remove(job)
            if not users[job.user]:
                del users[job.user]
            if not users:
                del self._waiting[job.key]
        return dropped
