"""The models of a comparison: their patterns, and the widths at which they are equal."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cache
from typing import Any

import runnel
from runnel import patterns
from runnel.compare import cost
from runnel.model import Model

EQUAL = ("none", "params", "state", "flops")
STATE_LENGTH = 32_768
NARROWEST, WIDEST, HEADS = 8, 1024, range(24, 65, 2)
"""Widths that are tried are narrow or have heads of a usual width; where a pattern fixes it, multiples of 64."""
WIDTHS = tuple(w for w in range(NARROWEST, WIDEST + 1, 2) if w <= 64 or any(w % head == 0 for head in HEADS))
FURTHEST = 2.0
"""How many times the first model's size another may be, or may be a part of it."""


@dataclass(frozen=True)
class Entrant:
    """One model. size: of what is to be equal, over the first model's (1 is perfect)."""

    pattern: str
    n_layers: int
    d_model: int
    size: float = 1.0

    def build(self, vocab_size: int, seed: int = 0) -> Model:
        return runnel.build(self.pattern, vocab_size, self.d_model, self.n_layers, seed)

    def small(self, d_model: int, n_layers: int, seed: int, **domain: Any) -> Model:
        """The pattern at the size of the tasks."""
        return runnel.build(
            self.pattern, d_model=d_model, n_layers=_at_least(self.pattern, n_layers), seed=seed, **domain
        )

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def parse_entrants(text: str, d_model: int, n_layers: int, equal: str, vocab_size: int) -> list[Entrant]:
    """The models of "mamba2,gla,(mamba2*3,attention)", every pattern repeated to at least n_layers layers.

    equal: the others get the width that brings them nearest to the first one in parameters, in bytes of state after
    32,768 tokens or in operations for a token; "none" gives all the same width. ValueError for a pattern that is none.
    """
    if equal not in EQUAL:
        raise ValueError(f"equal must be one of {', '.join(EQUAL)}; got {equal!r}")
    if d_model < NARROWEST or n_layers < 1:
        raise ValueError(f"models must have a width of at least {NARROWEST} and a layer; got {d_model} and {n_layers}")
    found = split_patterns(text)
    if len(set(found)) < len(found):
        raise ValueError(f"models must differ; got {text!r}")
    entrants = [Entrant(pattern, _at_least(pattern, n_layers), d_model) for pattern in found]
    if equal == "none":
        for entrant in entrants:
            entrant.build(vocab_size)  # a pattern that cannot be built is refused before anything is run
        return entrants
    measure = MEASURES[equal]
    target = measure(entrants[0].build(vocab_size))
    return [entrants[0], *(_fitted(entrant, measure, target, equal, vocab_size) for entrant in entrants[1:])]


def split_patterns(text: str) -> list[str]:
    """The patterns between the commas that stand outside parentheses."""
    found, depth = [""], 0
    for letter in text:
        depth += (letter == "(") - (letter == ")")
        if letter == "," and depth == 0:
            found.append("")
        else:
            found[-1] += letter
    found = [pattern.strip() for pattern in found]
    if not all(found):
        raise ValueError(f"models are patterns with commas between them; got {text!r}")
    return found


def _at_least(pattern: str, n_layers: int) -> int:
    own = len(patterns.parse(pattern, None))
    return own * -(-n_layers // own)


def _fitted(entrant: Entrant, measure: Callable[[Model], float], target: float, what: str, vocab_size: int) -> Entrant:
    """The entrant at the width whose size is nearest to the target."""

    @cache
    def ratio(d_model: int) -> float:
        return measure(replace(entrant, d_model=d_model).build(vocab_size)) / target

    try:
        near = _nearest(ratio, WIDTHS)
    except ValueError:
        near = _nearest(ratio, range(64, WIDEST + 1, 64))
    size = ratio(near)
    if not 1 / FURTHEST <= size <= FURTHEST:
        raise ValueError(
            f"{entrant.pattern} cannot be made equal in {what} to the first model: its nearest width {near} "
            f"has {size:.2g} times as much"
        )
    return replace(entrant, d_model=near, size=size)


def _nearest(ratio: Callable[[int], float], widths: Sequence[int]) -> int:
    """Sizes grow with the width, so that halving finds where they pass 1."""
    at = bisect_left(widths, 1.0, hi=len(widths) - 1, key=ratio)
    return min(widths[max(0, at - 1)], widths[at], key=lambda width: abs(ratio(width) - 1))


def _state(model: Model) -> float:
    return float(cost.sizes(model, [STATE_LENGTH])[0])


MEASURES: dict[str, Callable[[Model], float]] = {
    "params": lambda model: float(cost.parameters(model)),
    "state": _state,
    "flops": cost.flops_per_token,
}
