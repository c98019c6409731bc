"""Spans: attention in every layer, over the whole text in a few of them and over a window in all others.

Paper: "Efficient Long-Range Transformers: You Need to Attend More, but Not Necessarily at Every Layer" (2023,
2310.12442), section 3: layers `full` attend to everything before them, the others to `window` tokens.

Deviates: windows slide; the paper's local attention looks at its own block of tokens and the one before it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

PAPERS = {
    "Efficient Long-Range Transformers: You Need to Attend More, but Not Necessarily at Every Layer": "2310.12442",
}


@dataclass(frozen=True)
class Config:
    """layers >= 1; full: which of them, counted from 0, see the whole text."""

    layers: int = 6
    full: Sequence[int] = (2, 5)
    window: int = 512

    def __post_init__(self) -> None:
        if self.layers < 1 or not set(self.full) <= set(range(self.layers)):
            raise ValueError(f"spans needs full layers among its {self.layers}, from 0; got {list(self.full)}")


def pattern(config: Config) -> str:
    return ", ".join("attention" if i in config.full else _local(config) for i in range(config.layers))


def _local(config: Config) -> str:
    return f"attention(window={config.window})"
