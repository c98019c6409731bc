"""The service: everything that the routes of a server share, and what they may do with kept states."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from runnel.serve.engine import Engine
from runnel.serve.errors import Refused
from runnel.serve.keys import Key
from runnel.serve.metrics import Metrics
from runnel.serve.prefixes import Prefixes
from runnel.serve.served import Served
from runnel.serve.store import Entry, Full, Store
from runnel.state import Place, State


@dataclass(frozen=True)
class Service:
    served: Served
    engine: Engine
    store: Store
    prefixes: Prefixes
    metrics: Metrics

    def close(self) -> None:
        """End all threads; what was offered to be kept is kept."""
        self.engine.stop()
        self.prefixes.close()
        self.store.close()

    def measure(self) -> None:
        """Set the gauges that are read now and then."""
        self.metrics.kept.labels("memory").set(self.store.memory_bytes)
        self.metrics.kept.labels("disk").set(self.store.disk_bytes)

    def check_model(self, name: str | None) -> None:
        if name not in (None, self.served.name):
            raise Refused(404, f"the model here is {self.served.name}", code="model_not_found")

    def entry(self, key: Key, identity: str) -> Entry:
        """A document of who holds the key. Whether it is somebody else's cannot be told from the answer."""
        found = self.store.find(key.name, identity)
        if found is None:
            raise Refused(404, "there is no such state", code="state_not_found")
        return found

    def after(self, key: Key, identity: str | None) -> tuple[State, list[int]]:
        """The state that a text follows, and the tokens that it has yet to read."""
        if identity is None:
            return self.served.model.init_state(1), []
        entry = self.entry(key, identity)
        state = self.store.state(entry)
        if state is None:
            raise Refused(410, "the file of this state is damaged or gone", code="state_damaged")
        return state, [] if entry.newest is None else [entry.newest]

    def check_room(self, key: Key, count: int = 0) -> None:
        """Refused when who holds the key may keep no more bytes."""
        if self.store.kept(key.name) + count > key.state_bytes:
            raise Refused(403, f"this key may keep {key.state_bytes} bytes of states", code="state_quota")

    def keep(self, key: Key, place: Place, newest: int | None, name: str) -> Entry:
        """Keep a document. On disk when this returns."""
        state, row = place
        self.check_room(key, state.nbytes // state.batch_size)
        try:
            return self.store.keep(key.name, (state, row), newest, name)
        except Full as error:
            raise Refused(507, str(error), "server_error", "disk_full") from None

    def drop(self, key: Key, identity: str) -> Entry:
        """Forget a document."""
        entry = self.entry(key, identity)
        try:
            self.store.drop(entry)
        except Full as error:
            raise Refused(507, str(error), "server_error", "disk_full") from None
        return entry

    def note(self, key: Key, tokens: Sequence[int], place: Place) -> None:
        """Keep the state of who has read these tokens from the start, if there is room."""
        self.prefixes.offer(key.name, tokens, place)
