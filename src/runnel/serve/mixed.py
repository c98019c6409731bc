"""Every row with a drafter of its own: one drafter for the loop, and what it learns of them told to the metrics."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from runnel.drafters import Draft, Drafter, Draw, Seen
from runnel.policies import LengthPolicy, Round
from runnel.state import Place


class Own(NamedTuple):
    """What a row drafts with, and what that remembers of the row."""

    drafter: Drafter
    memory: Any


class Mixed(Drafter):
    """A row's memory is an `Own`, or None for a row that is not drafted for."""

    def __init__(self, looks_back: bool) -> None:
        super().__init__(None)
        self.looks_back = looks_back

    def begin(self, prompt: Sequence[int], draw: Draw) -> None:
        return None

    def propose(self, memory: Own | None, budget: int) -> Draft:
        return Draft([], []) if memory is None else memory.drafter.propose(memory.memory, budget)

    def advance(self, memory: Own | None, tokens: Sequence[int]) -> None:
        if memory is not None:
            memory.drafter.advance(memory.memory, tokens)

    def look_back(self, memory: Own | None, seen: Seen) -> None:
        if memory is not None and memory.drafter.looks_back:
            memory.drafter.look_back(memory.memory, seen)

    def stand(self, memory: Own | None, place: Place) -> None:
        if memory is not None:
            memory.drafter.stand(memory.memory, place)

    def propose_all(self, memories: Sequence[Own | None], budgets: Sequence[int]) -> list[Draft]:
        """The rows of one drafter in one call."""
        found = [Draft([], []) for _ in memories]
        groups: dict[int, list[int]] = {}
        for row, memory in enumerate(memories):
            if memory is not None:
                groups.setdefault(id(memory.drafter), []).append(row)
        for rows in groups.values():
            owned = [own for row in rows if (own := memories[row]) is not None]
            drafts = owned[0].drafter.propose_all([own.memory for own in owned], [budgets[row] for row in rows])
            for row, draft in zip(rows, drafts, strict=True):
                found[row] = draft
        return found


class Watched(LengthPolicy):
    """A policy whose rounds somebody else sees too."""

    def __init__(self, policy: LengthPolicy, see: Callable[[Round], None]) -> None:
        super().__init__(policy.config)
        self.policy, self.see = policy, see

    def budgets(self, rows: Sequence[int], room: Sequence[int]) -> list[int]:
        return self.policy.budgets(rows, room)

    def trimmed(self, rows: Sequence[int], drafts: Sequence[Draft]) -> list[Draft]:
        return self.policy.trimmed(rows, drafts)

    def observe(self, round: Round) -> None:
        self.policy.observe(round)
        self.see(round)

    def rest(self) -> int:
        return self.policy.rest()
