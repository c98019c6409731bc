"""Prefixes: what was read once is not read again, whoever sends it in whatever conversation.

While a prompt is read, and when an answer has ended, its state is kept under a digest of all tokens that it has read. A
request begins at the longest prefix of its prompt that is known. With the native engine its answer is the same to the
bit, since a state's bits do not depend on the pieces in which its text was read. Owners do not share prefixes: how fast
an answer comes must not tell what somebody else has asked.
"""

from __future__ import annotations

import hashlib
import logging
import queue
import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from runnel.serve.metrics import Metrics
from runnel.serve.store import PREFIX, Entry, Full, Store
from runnel.state import Place, State

log = logging.getLogger("runnel.serve")
WAITING = 256
"""States that wait to be written; more are not kept."""


class Found(NamedTuple):
    """A state that has read the first so many tokens of a prompt."""

    tokens: int
    state: State


class Prefixes:
    """The prefixes that a store keeps. stride: tokens between two states of a short prompt; 0 to keep none."""

    def __init__(self, store: Store, metrics: Metrics, stride: int = 256) -> None:
        self.store, self.metrics, self.stride = store, metrics, stride
        self._lock = threading.Lock()
        self._known: dict[str, Entry] = {}  # by digest
        self._lengths: dict[str, Counter[int]] = {}  # by owner: how many prefixes of each length
        self._waiting: queue.Queue[tuple[str, list[int], Place] | None] = queue.Queue(WAITING)
        store.on_drop = self._discard
        for entry in store.prefixes():
            self._add(entry)
        self._writer = threading.Thread(target=self._write, name="runnel-prefixes", daemon=True)
        self._writer.start()

    def longest(self, owner: str, tokens: Sequence[int]) -> Found | None:
        """The longest known prefix."""
        with self._lock:
            lengths = sorted(n for n in self._lengths.get(owner, ()) if n <= len(tokens))
        candidates = list(zip(lengths, _digests(owner, tokens, lengths), strict=True))
        for count, digest in reversed(candidates):
            with self._lock:
                entry = self._known.get(digest)
            if entry is None:
                continue
            state = self.store.state(entry)
            if state is not None:
                self.metrics.prefix.labels("hit").inc()
                self.metrics.reused.inc(count)
                return Found(count, state)
        self.metrics.prefix.labels("miss").inc()
        return None

    def offer(self, owner: str, tokens: Sequence[int], place: Place) -> None:
        """Keep the state of who has read these tokens, some time later, if there is room. Never blocks."""
        if self.stride and len(tokens):
            try:
                self._waiting.put_nowait((owner, list(tokens), place))
            except queue.Full:
                log.info("too many states wait to be kept")

    def settle(self) -> None:
        """Wait until all that was offered is kept."""
        self._waiting.join()

    def close(self) -> None:
        self._waiting.put(None)
        self._writer.join()

    def _write(self) -> None:
        while (offered := self._waiting.get()) is not None:
            try:
                self._keep(*offered)
            except Exception as error:  # a prefix that is not kept costs time, nothing else
                log.warning("a prefix was not kept: %s", error)
            finally:
                self._waiting.task_done()

    def _keep(self, owner: str, tokens: list[int], place: Place) -> None:
        (digest,) = _digests(owner, tokens, [len(tokens)])
        with self._lock:
            if digest in self._known:
                return
        try:
            self._add(self.store.keep(owner, place, None, digest=digest, kind=PREFIX))
        except Full as error:
            log.info("a prefix was not kept: %s", error)

    def _add(self, entry: Entry) -> None:
        with self._lock:
            self._known[entry.digest] = entry
            self._lengths.setdefault(entry.owner, Counter())[entry.tokens] += 1

    def _discard(self, entry: Entry) -> None:
        with self._lock:
            if self._known.pop(entry.digest, None) is not None:
                own = self._lengths[entry.owner]
                own[entry.tokens] -= 1
                if not own[entry.tokens]:
                    del own[entry.tokens]


def _digests(owner: str, tokens: Sequence[int], lengths: Sequence[int]) -> Iterator[str]:
    """Of the first so many tokens, for ascending lengths."""
    raw = np.asarray(tokens, dtype="<i4").tobytes()
    digest, read = hashlib.sha256(f"{owner}\n".encode()), 0
    for length in lengths:
        digest.update(raw[4 * read : 4 * length])
        read = length
        yield digest.copy().hexdigest()
