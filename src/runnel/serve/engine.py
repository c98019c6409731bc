"""The engine: one thread that decodes for everyone, with the loop of `runnel.decode_loop`.

Between two rounds rows join and leave the batch, and prompts are read a piece at a time, so that no stream stalls.
With the native engine a row's bits do not depend on its company: an answer in a crowded batch is the answer alone.
"""

from __future__ import annotations

import contextlib
import itertools
import logging
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from runnel import catalog
from runnel.acceptance import Acceptance
from runnel.decode_loop import Batch, Loop
from runnel.drafters import Drafter
from runnel.model import TextModel
from runnel.policies import LengthPolicy
from runnel.prefill import prefill
from runnel.rows import Row
from runnel.serve.jobs import Busy, Ended, Event, Failed, Job, Late, Queue, Read, Wrote
from runnel.serve.metrics import Metrics
from runnel.serve.mixed import Mixed, Watched
from runnel.state import Place, gathered

log = logging.getLogger("runnel.serve")
PROBE = 512
"""Tokens after which, and after twice as many, the size of a state is measured."""
TOGETHER = 8
"""Texts that are read side by side, at most."""


@dataclass(frozen=True)
class Limits:
    """rows: texts written side by side. state_bytes: of all states in the batch. waiting, waiting_each: jobs in the
    queue, and of one key. chunk: tokens of prompts that are read between two rounds.
    """

    rows: int = 64
    state_bytes: int = 1 << 30
    waiting: int = 256
    waiting_each: int = 128
    chunk: int = 128

    @classmethod
    def asked(cls, rows: int, megabytes: int, waiting: int, chunk: int, keys: Path | None) -> Limits:
        """As an operator says them. keys: where there are several, none keeps all others out of the queue."""
        return cls(rows, megabytes << 20, waiting, waiting if keys is None else max(1, waiting // 2), chunk)


@dataclass(frozen=True)
class Size:
    """The bytes of a row's state: base + per_token * tokens, as measured."""

    base: int
    per_token: float

    @classmethod
    @torch.no_grad()
    def of(cls, model: TextModel) -> Size:
        once = prefill(model, [[0] * PROBE], model.init_state(1))
        twice = prefill(model, [[0] * PROBE], once)
        grown = (twice.nbytes - once.nbytes) / PROBE
        return cls(int(once.nbytes - PROBE * grown), grown)

    def at(self, tokens: int) -> int:
        return int(self.base + self.per_token * tokens)


class Engine:
    """Reads and writes for all jobs. `start` begins its thread, `stop` ends it."""

    def __init__(
        self,
        model: TextModel,
        limits: Limits,
        metrics: Metrics,
        drafters: Sequence[Drafter] = (),
        policy: str | LengthPolicy | Any = "goodput",
    ) -> None:
        self.model, self.limits, self.metrics = model, limits, metrics
        self.size = Size.of(model)
        watched = Watched(catalog.make("policies", LengthPolicy, policy), metrics.see)
        self.drafter = Mixed(any(drafter.looks_back for drafter in drafters))
        self.loop = Loop(model, self.drafter, catalog.make("acceptance", Acceptance, "match"), watched, self._gain)
        self.batch, self.queue = Batch(), Queue()
        self.reading: list[Job] = []
        self.writing: dict[int, tuple[Job, int]] = {}  # by the index of a row: its job, and its number there
        self.newest: dict[int, float] = {}  # by the index of a row: when its newest token came
        self.gained: list[tuple[int, list[int]]] = []  # what rows have gained in this round
        self.told: list[tuple[Job, Event]] = []  # what has happened since the last delivery
        self.draining = False
        self._indices, self._wake, self._stopped = itertools.count(), threading.Condition(), False
        self._thread = threading.Thread(target=self._run, name="runnel-engine", daemon=True)

    # ---- for other threads --------------------------------------------------------------------------------------

    def start(self) -> None:
        self._thread.start()

    def drain(self) -> None:
        """Take no more jobs; those that were taken are finished."""
        self.draining = True

    def stop(self) -> None:
        """End the thread. What is still being written fails."""
        with self._wake:
            self._stopped = True
            self._wake.notify()
        self._thread.join()

    @property
    def alive(self) -> bool:
        return self._thread.is_alive()

    def submit(self, job: Job) -> None:
        """Take a job. Busy when too much is waiting; ValueError when it is too large for any time."""
        job.bytes = self._bytes(job)
        if job.width > self.limits.rows:
            raise ValueError(f"a request may have at most {self.limits.rows} texts; got {job.width}")
        if job.bytes > self.limits.state_bytes:
            raise ValueError(
                f"a request may take at most {self.limits.state_bytes} bytes of states; this one may need {job.bytes}"
            )
        with self._wake:
            if self.draining or self._stopped or not self.alive:
                raise Busy("the server is shutting down", 5)
            if len(self.queue) >= self.limits.waiting or self.queue.of(job.key) >= self.limits.waiting_each:
                raise Busy(f"{len(self.queue)} requests are waiting", 1 + len(self.queue) / self.limits.rows)
            self.queue.push(job)
            self.metrics.queued.set(len(self.queue))
            self._wake.notify()

    # ---- the thread ---------------------------------------------------------------------------------------------

    @torch.no_grad()
    def _run(self) -> None:
        try:
            while self._goes_on():
                self._write()
                self._deliver()
                self._read()
                self._deliver()
        finally:
            with self._wake:
                self._stopped = True
                for job in [*self.queue, *self._running()]:
                    self._tell(job, Failed(Busy("the server is shutting down", 5)))
            self._deliver()

    def _goes_on(self) -> bool:
        """Wait for something to do, and see what has changed since the last round; False when the engine is to end."""
        with self._wake:
            self._wake.wait_for(lambda: self._stopped or len(self.queue) or self.reading or self.batch.rows)
            if not self._stopped:
                self._drop()
                self._admit()
            return not self._stopped

    def _tell(self, job: Job, event: Event) -> None:
        self.told.append((job, event))

    def _deliver(self) -> None:
        """Tell what has happened: all that one thread is to hear, in one piece."""
        told, self.told = self.told, []
        posts: dict[Callable[..., Any], list[tuple[Job, Event]]] = {}
        for job, event in told:
            posts.setdefault(job.post, []).append((job, event))
        for post, own in posts.items():
            with contextlib.suppress(RuntimeError):  # its event loop has ended: nobody listens any more
                post(_hand_out, own)

    def _running(self) -> list[Job]:
        return list(dict.fromkeys([*self.reading, *(job for job, _ in self.writing.values())]))

    def _drop(self) -> None:
        """Forget jobs that nobody waits for any more, or whose time is over."""
        now = time.monotonic()

        def over(job: Job) -> bool:
            return job.cancelled or now > job.deadline

        dropped = self.queue.drop(over)
        for job in [*dropped, *filter(over, self._running())]:
            self._fail(job, Late("the deadline of the request has passed"))

    def _admit(self) -> None:
        """Begin jobs in turn, as long as the batch and the memory have room for them."""
        while (job := self.queue.pop(self._fits)) is not None:
            self.metrics.waited.observe(time.monotonic() - job.queued)
            self.reading.append(job)
        self.metrics.queued.set(len(self.queue))

    def _fits(self, job: Job) -> bool:
        """Rows side by side take what the largest of them takes: memories that grow are padded to the longest."""
        jobs = [*self._running(), job]
        rows, largest = sum(other.width for other in jobs), max(other.bytes // other.width for other in jobs)
        return rows <= self.limits.rows and rows * largest <= self.limits.state_bytes

    def _bytes(self, job: Job) -> int:
        """What the states of a job come to when all its texts are as long as they may be."""
        read = int(job.reading.state.lengths[0]) + job.reading.left
        return sum(self.size.at(read + row.limit) for row in job.rows) or self.size.at(read)

    def _write(self) -> None:
        """One round."""
        if not self.batch.rows:
            return
        assert self.batch.state is not None
        marks = [(row, len(row.tokens), row.recalled) for row in self.batch.rows]
        try:
            self.batch.state = self.loop.round(self.batch.rows, self.batch.state)
        except BaseException:  # a panic of a library in Rust is no Exception
            self.gained.clear()
            for row, count, recalled in marks:
                row.back_to(count, recalled)
            self._write_apart()
        self._wrote()
        self._leave()
        self._measure()

    def _measure(self) -> None:
        self.metrics.batch.set(len(self.batch.rows))
        self.metrics.state_bytes.set(0 if self.batch.state is None else self.batch.state.nbytes)

    def _write_apart(self) -> None:
        """The same round for each row alone, so that only the jobs fail that cannot go on."""
        whole, self.batch = self.batch, Batch()
        assert whole.state is not None
        for place, row in enumerate(whole.rows):
            if row.index not in self.writing:  # another text of its job has failed
                continue
            try:
                self.batch.join([row], self.loop.round([row], whole.state.fork([place])))
            except BaseException as error:
                self._fail(self.writing[row.index][0], error)

    def _read(self) -> None:
        """A piece of the texts that are being read: those of one kind in one call."""
        own = self.reading[:TOGETHER]
        self.reading = self.reading[TOGETHER:] + own  # all come to their turn
        room = self.limits.chunk if self.batch.rows else 4 * self.limits.chunk
        share = max(1, room // max(1, len(own)))
        for kind in {type(job.reading) for job in own}:
            jobs = [job for job in own if type(job.reading) is kind and job.reading.left]
            self._read_pieces(jobs, [min(share, job.to_stop) for job in jobs])
        self._join([job for job in own if job in self.reading and not job.reading.left])

    def _read_pieces(self, jobs: Sequence[Job], sizes: Sequence[int]) -> None:
        if not jobs:
            return
        try:
            type(jobs[0].reading).step(self.model, [job.reading for job in jobs], sizes)
        except BaseException as error:
            if len(jobs) == 1:
                self._fail(jobs[0], error)
            else:  # each alone, so that only those fail that cannot be read
                for job, size in zip(jobs, sizes, strict=True):
                    self._read_pieces([job], [size])
            return
        self.metrics.read.inc(sum(sizes))
        for job in jobs:
            if job.keep is not None and job.stops:
                job.keep(job.reading.at, job.reading.state)

    def _join(self, jobs: Sequence[Job]) -> None:
        """Texts were read: their rows join the batch."""
        rows, places = list[Row](), list[Place]()
        for job in jobs:
            self.reading.remove(job)
            self._tell(job, Read(job.reading))
            own = self.model.own_state(job.reading.state)
            for number, row in enumerate(job.rows):
                row.index = next(self._indices)
                self.writing[row.index] = (job, number)
                self.drafter.stand(row.memory, (own, 0))
            rows += job.rows
            places += [(job.reading.state, 0)] * len(job.rows)
        if rows:
            self.batch.join(rows, gathered(places))
            self._leave()

    def _gain(self, index: int, tokens: list[int]) -> None:
        self.gained.append((index, tokens))

    def _wrote(self) -> None:
        """Tell what the rows gained in a round."""
        now, waits = time.monotonic(), Counter[float]()
        for index, tokens in self.gained:
            if index not in self.writing:  # another text of its job has failed
                continue
            job, number = self.writing[index]
            row, count, since = job.rows[number], len(tokens), self.newest.get(index)
            if since is None:
                self.metrics.first_token.observe(now - job.queued)
            else:
                waits[(now - since) / count] += count
            self.newest[index] = now
            self._tell(job, Wrote(number, tokens, row.logprobs[-count:], row.top_logprobs[-count:] if row.top else []))
        self.metrics.calls.inc()
        self.metrics.written.inc(sum(len(tokens) for _, tokens in self.gained))
        for wait, count in waits.items():
            self.metrics.between.note(wait, count)
        self.gained.clear()

    def _leave(self) -> None:
        """Rows that are done leave the batch."""
        done = [place for place, row in enumerate(self.batch.rows) if row.done]
        if not done:
            return
        rows = [self.batch.rows[place] for place in done]
        state = self.batch.leave(done)
        for place, row in enumerate(rows):
            job, number = self.writing.pop(row.index)
            self.newest.pop(row.index, None)
            assert row.ended is not None
            self._tell(job, Ended(number, row.ended, (state, place)))

    def _fail(self, job: Job, error: BaseException) -> None:
        """End a job before its time."""
        if job in self.reading:
            self.reading.remove(job)
        gone = {row.index for row in job.rows}
        for index in gone:
            self.writing.pop(index, None)
            self.newest.pop(index, None)
        self._remove(lambda row: row.index in gone)
        kind = "cancelled" if job.cancelled else type(error).__name__
        self.metrics.failures.labels(kind).inc()
        if not isinstance(error, (ValueError, Late)):
            log.error("a request failed", exc_info=error)
        self._tell(job, Failed(error))

    def _remove(self, unwanted: Callable[[Row], bool]) -> None:
        gone = [place for place, row in enumerate(self.batch.rows) if unwanted(row)]
        if gone:
            self.batch.leave(gone)
            self._measure()


def _hand_out(told: Sequence[tuple[Job, Event]]) -> None:
    for job, event in told:
        job.tell(event)
