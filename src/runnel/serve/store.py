"""The store: states in memory, and beyond its budget on disk, where they outlive the process.

A state is acknowledged when its file (safetensors) and then its line in the index (SQLite) are on disk; a file without
a line is swept away at the next start, so that a crash leaves whole states or none. Every file is sealed with a secret
of the store: one that was damaged, or made elsewhere, is never given to a model. Files are named by the store alone.
"""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import json
import logging
import secrets
import sqlite3
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import torch
from filelock import FileLock, Timeout

from runnel.model import TextModel
from runnel.state import Place, State, leaves
from runnel.storage import read_tensors, write_atomically

log = logging.getLogger("runnel.serve")
DOCUMENT, PREFIX = "document", "prefix"
"""What was asked to be kept, and what is kept as long as there is room."""
COLUMNS = "id, owner, kind, name, digest, tokens, newest, bytes, created"
SCHEMA = """
CREATE TABLE IF NOT EXISTS states (
    id TEXT PRIMARY KEY, owner TEXT NOT NULL, kind TEXT NOT NULL, name TEXT NOT NULL, digest TEXT NOT NULL,
    tokens INTEGER NOT NULL, newest INTEGER, bytes INTEGER NOT NULL, created INTEGER NOT NULL,
    model TEXT NOT NULL, used INTEGER NOT NULL
);
CREATE INDEX IF NOT EXISTS owners ON states (model, owner, kind, created);
CREATE INDEX IF NOT EXISTS ages ON states (kind, used);
CREATE INDEX IF NOT EXISTS clock ON states (used);
CREATE INDEX IF NOT EXISTS sizes ON states (bytes);
"""
WAL = "wal"
BALLAST = 128 << 10
"""Bytes of a file that gives way where the disk is so full that the index cannot note what goes."""
NOW = "(SELECT COALESCE(MAX(used), 0) + 1 FROM states)"
"""A clock that counts uses, the same for all processes."""


class Full(Exception):
    """No room for what was asked to be kept."""


class Entry(NamedTuple):
    """A line of the index. tokens: how many the state has read. newest: the token after them. digest: of a prefix."""

    id: str
    owner: str
    kind: str
    name: str
    digest: str
    tokens: int
    newest: int | None
    bytes: int
    created: int


@dataclass(frozen=True)
class Budget:
    """Bytes in memory, and on disk."""

    memory: int = 256 << 20
    disk: int = 4 << 30


def hold(folder: Path, wait: float = 0.0) -> FileLock:
    """Keep a folder for one server. wait: seconds for another one to leave it."""
    lock = FileLock(folder / ".lock")
    try:
        lock.acquire(timeout=wait)
    except Timeout:
        raise ValueError(f"another server keeps its states in {folder}: give another --states") from None
    return lock


def claim(folder: Path, journal: str = WAL) -> FileLock:
    """Take a folder for one server. Files and index agree after it, whatever crash came before; it has a secret."""
    bodies = folder / "bodies"
    bodies.mkdir(parents=True, exist_ok=True)
    lock = hold(folder)
    _secret(folder / "secret")
    _lay_ballast(folder)
    index = _index(folder, journal)
    known = {row[0] for row in index.execute("SELECT id FROM states")}
    there = {path.stem for path in bodies.glob("*.safetensors")}
    for path in bodies.iterdir():
        if path.suffix != ".safetensors" or path.stem not in known:
            path.unlink()
    index.executemany("DELETE FROM states WHERE id = ?", [(identity,) for identity in known - there])
    index.close()
    return lock


class Store:
    """States of one model in a folder. Safe for many threads, and for many processes once one of them has claimed the
    folder. claimed: whether it has; else this one does. journal: how SQLite keeps the index whole: "wal", the faster
    one, or "delete", which several machines can share. on_drop: told of every entry that goes.
    """

    def __init__(
        self, folder: Path, model: TextModel, budget: Budget, claimed: bool = False, journal: str = WAL
    ) -> None:
        self.folder, self.model, self.budget = folder, model, budget
        self.bodies = folder / "bodies"
        self._claim = None if claimed else claim(folder, journal)
        self.fingerprint = model.fingerprint()
        self._lock, self._memory, self._held = threading.RLock(), OrderedDict[str, State](), 0
        self._secret = _secret(folder / "secret")
        self._index = _index(folder, journal)
        self.on_drop: Callable[[Entry], None] = lambda entry: None

    def close(self) -> None:
        with self._lock:
            self._index.close()
            if self._claim is not None:
                self._claim.release()

    # ---- what is there ------------------------------------------------------------------------------------------

    def find(self, owner: str, identity: str) -> Entry | None:
        """An owner's own document."""
        found = self._rows("id = ? AND owner = ? AND kind = ?", (identity, owner, DOCUMENT))
        return found[0] if found else None

    def documents(self, owner: str, count: int, after: str | None = None) -> list[Entry]:
        """An owner's documents, the newest first; after: go on behind this one."""
        seen = self.find(owner, after) if after is not None else None
        before = (2**62, "") if seen is None else (seen.created, seen.id)
        where = "owner = ? AND kind = ? AND (created, id) < (?, ?) ORDER BY created DESC, id DESC LIMIT ?"
        return self._rows(where, (owner, DOCUMENT, *before, count))

    def prefixes(self) -> list[Entry]:
        return self._rows("kind = ?", (PREFIX,))

    def kept(self, owner: str) -> int:
        """Bytes of an owner's documents."""
        query = "SELECT COALESCE(SUM(bytes), 0) FROM states WHERE model = ? AND owner = ? AND kind = ?"
        with self._lock:
            return int(self._index.execute(query, (self.fingerprint, owner, DOCUMENT)).fetchone()[0])

    @property
    def memory_bytes(self) -> int:
        return self._held

    @property
    def disk_bytes(self) -> int:
        with self._lock:
            return int(self._index.execute("SELECT COALESCE(SUM(bytes), 0) FROM states").fetchone()[0])

    # ---- keeping and giving -------------------------------------------------------------------------------------

    def keep(
        self, owner: str, place: Place, newest: int | None, name: str = "", digest: str = "", kind: str = DOCUMENT
    ) -> Entry:
        """Keep the state of one row, on disk when this returns. Full when there is no room on disk."""
        state = place[0].fork([place[1]])  # a copy, without the company and the room to grow of what was written
        entry = Entry(
            id=secrets.token_hex(12),
            owner=owner,
            kind=kind,
            name=name,
            digest=digest,
            tokens=int(state.lengths[0]),
            newest=newest,
            bytes=state.nbytes,
            created=int(time.time()),
        )
        self._make_room(entry.bytes)
        notes = self._notes(state, newest)
        try:
            self._save(state, entry, notes)
        except Full:
            if kind == PREFIX:
                raise
            self._give_way()
            self._save(state, entry, notes)
        with self._lock:
            try:
                self._note(
                    f"INSERT INTO states ({COLUMNS}, model, used) VALUES ({', '.join('?' * 10)}, {NOW})",
                    (*entry, self.fingerprint),
                )
            except Full:
                self._body(entry.id).unlink(missing_ok=True)
                raise
            self._remember(entry.id, state)
        return entry

    def state(self, entry: Entry) -> State | None:
        """The state of an entry. None, and the entry is gone, when its file is missing or damaged."""
        with self._lock:
            state = self._memory.get(entry.id)
            with contextlib.suppress(sqlite3.OperationalError):  # on a full disk nothing is noted, and all can be read
                self._index.execute(f"UPDATE states SET used = {NOW} WHERE id = ?", (entry.id,))
            if state is not None:
                self._memory.move_to_end(entry.id)
                return state
        try:
            state, _ = self.read(self._body(entry.id))
        except FileNotFoundError:
            self.drop(entry)
            return None
        except (ValueError, OSError) as error:
            log.warning("a kept state cannot be used: %s", error)
            self.drop(entry)
            return None
        with self._lock:
            self._remember(entry.id, state)
        return state

    def drop(self, entry: Entry) -> None:
        """Forget an entry. Full when the index cannot be written; its file is gone all the same."""
        line = "DELETE FROM states WHERE id = ?", (entry.id,)
        with self._lock:
            self._body(entry.id).unlink(missing_ok=True)  # first: the index needs room to be written
            self._forget(entry.id)
            try:
                self._note(*line)
            except Full:
                (self.folder / "ballast").unlink(missing_ok=True)
                self._note(*line)
            _lay_ballast(self.folder)
        self.on_drop(entry)

    def file(self, entry: Entry) -> Path:
        """The file of an entry, to be copied: `read` takes it again, of any store with the same secret."""
        return self._body(entry.id)

    def read(self, path: Path) -> tuple[State, int | None]:
        """A state and its newest token from a file. ValueError unless this store has sealed it."""
        state, notes = State.load(path, self.model), read_tensors(path)[1]
        newest = None if "newest" not in notes else int(json.loads(notes["newest"]))
        if not hmac.compare_digest(notes.get("seal", ""), self._seal(state, newest)):
            raise ValueError("the state file was not made by this server, or is damaged")
        return state, newest

    # ---- inside -------------------------------------------------------------------------------------------------

    def _rows(self, where: str, values: tuple[object, ...]) -> list[Entry]:
        with self._lock:
            query = f"SELECT {COLUMNS} FROM states WHERE model = ? AND {where}"
            return [Entry(*row) for row in self._index.execute(query, (self.fingerprint, *values))]

    def _body(self, identity: str) -> Path:
        return self.bodies / f"{identity}.safetensors"

    def _notes(self, state: State, newest: int | None) -> dict[str, str]:
        notes = {"seal": self._seal(state, newest)}
        return notes if newest is None else {**notes, "newest": json.dumps(newest)}

    def _seal(self, state: State, newest: int | None) -> str:
        """A digest of everything in a state that only who knows the secret can make."""
        digest = hmac.new(self._secret, f"{state.identify()} {newest}".encode(), hashlib.sha256)
        for leaf in [*leaves(state.layers), state.lengths]:
            plain = leaf.detach().cpu().contiguous()
            digest.update(f"{plain.dtype} {tuple(plain.shape)}".encode())
            digest.update(plain.flatten().view(torch.uint8).numpy().tobytes())
        return digest.hexdigest()

    def _note(self, query: str, values: tuple[object, ...]) -> None:
        """Write to the index. Full when there is no room for that."""
        try:
            self._index.execute(query, values)
        except sqlite3.OperationalError:
            self._give_way()
            try:
                self._index.execute(query, values)
            except sqlite3.OperationalError as error:
                raise Full(f"the index could not be written: {error}") from None

    def _save(self, state: State, entry: Entry, notes: dict[str, str]) -> None:
        try:
            state.save(self._body(entry.id), notes)
        except OSError as error:
            raise Full(f"the disk is full: {error.strerror or error}") from None

    def _give_way(self) -> None:
        """Make room on a disk that is full: of prefixes, which nobody was promised, and of what SQLite wrote twice."""
        with self._lock:
            query = f"SELECT {COLUMNS} FROM states WHERE kind = ? ORDER BY used LIMIT 64"
            oldest = [Entry(*row) for row in self._index.execute(query, (PREFIX,))]
            for entry in oldest:
                self._body(entry.id).unlink(missing_ok=True)
                self._forget(entry.id)
            with contextlib.suppress(sqlite3.OperationalError):  # lines without a file are dropped when they are used
                self._index.execute("PRAGMA wal_checkpoint(TRUNCATE)")
                self._index.executemany("DELETE FROM states WHERE id = ?", [(entry.id,) for entry in oldest])
        for entry in oldest:
            self.on_drop(entry)

    def _remember(self, identity: str, state: State) -> None:
        self._forget(identity)
        self._memory[identity] = state
        self._held += state.nbytes
        while self._held > self.budget.memory and self._memory:
            self._forget(next(iter(self._memory)))

    def _forget(self, identity: str) -> None:
        state = self._memory.pop(identity, None)
        if state is not None:
            self._held -= state.nbytes

    def _make_room(self, needed: int) -> None:
        """Drop the prefixes that were used longest ago. Full when documents alone leave no room."""
        with self._lock:
            query = f"SELECT {COLUMNS} FROM states WHERE kind = ? ORDER BY used LIMIT 1"
            while self.disk_bytes + needed > self.budget.disk:
                oldest = self._index.execute(query, (PREFIX,)).fetchone()
                if oldest is None:
                    raise Full(f"the states on disk may take {self.budget.disk} bytes")
                self.drop(Entry(*oldest))


def _index(folder: Path, journal: str) -> sqlite3.Connection:
    index = sqlite3.connect(folder / "index.sqlite", timeout=30, check_same_thread=False, isolation_level=None)
    index.execute(f"PRAGMA journal_mode = {journal}")
    index.execute("PRAGMA synchronous = FULL")
    index.executescript(SCHEMA)
    return index


def _lay_ballast(folder: Path) -> None:
    """Where there is none, and room for it."""
    if not (folder / "ballast").exists():
        with contextlib.suppress(OSError):
            write_atomically(folder / "ballast", lambda target: _write_private(target, bytes(BALLAST)))


def _secret(path: Path) -> bytes:
    if not path.exists():
        write_atomically(path, lambda target: _write_private(target, secrets.token_bytes(32)))
        path.chmod(0o600)
    return path.read_bytes()


def _write_private(path: Path, content: bytes) -> None:
    path.chmod(0o600)
    path.write_bytes(content)
