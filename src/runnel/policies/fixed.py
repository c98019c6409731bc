"""Fixed: every round drafts as much as the drafter gives, up to a length.

budget = min(room, max_draft)                                                      (1)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from runnel.policies import LengthPolicy

PAPERS: dict[str, str] = {}


@dataclass(frozen=True)
class Config:
    """max_draft >= 0, or None for whatever the drafter gives."""

    max_draft: int | None = None

    def __post_init__(self) -> None:
        if self.max_draft is not None and self.max_draft < 0:
            raise ValueError(f"max_draft must be at least 0; got {self.max_draft}")


class Fixed(LengthPolicy):
    config: Config

    def budgets(self, rows: Sequence[int], room: Sequence[int]) -> list[int]:
        longest = self.config.max_draft
        return list(room) if longest is None else [min(tokens, longest) for tokens in room]  # eq. (1)


def reference(room: int, config: Config) -> int:
    """Eq. (1) by counting."""
    budget = 0
    while budget < room and (config.max_draft is None or budget < config.max_draft):
        budget += 1
    return budget
