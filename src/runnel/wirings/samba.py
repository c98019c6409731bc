"""Samba: a selective state space layer and one of attention within a window, in turn, a gated perceptron after each.

Paper: "Samba: Simple Hybrid State Space Models for Efficient Unlimited Context Language Modeling" (2024, 2406.07522),
section 2.1: Mamba, MLP, SWA, MLP. The state is that of Mamba and a window of keys and values: it stops growing.
"""

from __future__ import annotations

from dataclasses import dataclass

PAPERS = {
    "Samba: Simple Hybrid State Space Models for Efficient Unlimited Context Language Modeling": "2406.07522",
}


@dataclass(frozen=True)
class Config:
    window: int = 2048


def pattern(config: Config) -> str:
    return f"mamba+swiglu, attention(window={config.window})+swiglu"
