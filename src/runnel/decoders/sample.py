"""Sampling: a draw from the model's law, tempered and truncated, with noise keyed by (the row's seed, position).

Papers: top-k, "Hierarchical Neural Story Generation" (2018, 1805.04833), section 5.1; top-p, "The Curious Case of
Neural Text Degeneration" (2019, 1904.09751), eq. 2-3; min-p, "Turning Up the Heat: Min-p Sampling for Creative and
Coherent LLM Outputs" (2024, 2407.01082), section 3.

    l    = the logits, after the processors of the stages bias, penalty and ban        (0)
    q(v) = softmax(l / temperature)_v                                                  (1)
    top-k: v is among the k likeliest                                                  (2)
    top-p: the outcomes likelier than v have less than top_p of the mass               (3)
    min-p: q(v) >= min_p * max_u q(u)                                                  (4)
    y = argmax_v (log q(v) + G_v),  G_v ~ Gumbel(0) given by (seed, position, v)       (5)

(2), (3), (4) and then the processors that truncate apply in this order, each to the renormalised law that the one
before it left. Processors: see `runnel/processors`. Temperature 0 is the likeliest token after (0).

Eq. (5) is an exact draw, and the same draw wherever the logits come from: a draft is accepted when it is the token
that (5) would have drawn anyway.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from runnel.decoders import Decoder
from runnel.ops.sampling import certain, gumbel, tempered
from runnel.processors import Exhausted, Processor, Stage, Text, resolve

PAPERS = {
    "Hierarchical Neural Story Generation": "1805.04833",
    "The Curious Case of Neural Text Degeneration": "1904.09751",
    "Turning Up the Heat: Min-p Sampling for Creative and Coherent LLM Outputs": "2407.01082",
}
LOSSLESS = True


@dataclass(frozen=True)
class Config:
    """temperature >= 0; top_k >= 1, top_p in (0, 1] and min_p in [0, 1], or None for no truncation.

    processors: names, Configs or objects of `runnel/processors`.
    """

    temperature: float = 1.0
    top_k: int | None = None
    top_p: float | None = None
    min_p: float | None = None
    processors: Sequence[str | Processor | Any] = ()

    def __post_init__(self) -> None:
        if not 0 <= self.temperature < math.inf:
            raise ValueError(f"temperature must be a finite number >= 0; got {self.temperature}")
        if self.top_k is not None and self.top_k < 1:
            raise ValueError(f"top_k must be at least 1; got {self.top_k}")
        if self.top_p is not None and not 0 < self.top_p <= 1:
            raise ValueError(f"top_p must lie in (0, 1]; got {self.top_p}")
        if self.min_p is not None and not 0 <= self.min_p <= 1:
            raise ValueError(f"min_p must lie in [0, 1]; got {self.min_p}")


class Sample(Decoder):
    def __init__(self, config: Config) -> None:
        super().__init__(config)
        processors = resolve(config.processors)
        self.changes = [p for p in processors if p.stage < Stage.TRUNCATION]
        self.truncations = [p for p in processors if p.stage == Stage.TRUNCATION]
        self.reads_text = bool(processors)
        self.remembers = any(p.remembers for p in processors)
        _check_alone(config, self.truncations)

    def law(self, logits: Tensor, texts: Sequence[Text] = ()) -> Tensor:
        changed = self._changed(logits, texts)
        return certain(changed) if self.config.temperature == 0 else self._truncated(changed, texts).log_softmax(-1)

    def scores(
        self, logits: Tensor, seeds: Sequence[int], positions: Sequence[int], texts: Sequence[Text] = ()
    ) -> Tensor:
        changed = self._changed(logits, texts)
        if self.config.temperature == 0:
            return changed
        return self._truncated(changed, texts) + gumbel(seeds, positions, logits.shape[-1])  # eq. (5)

    def remember(self, text: Text, logits: Tensor, token: int) -> Mapping[str, Any]:
        if not self.remembers:
            return text.memory
        scores, notes = self._tempered(self._changed(logits[None], [text])), dict(text.memory)
        for processor in self.truncations:
            if processor.remembers:
                notes[processor.name] = processor.note(text, scores[0], token)
            scores = processor.process(scores, [text])
        return notes

    def check(self, vocab_size: int, stops: frozenset[int], limit: int) -> None:
        for processor in [*self.changes, *self.truncations]:
            processor.check(vocab_size, stops, limit)

    def _truncated(self, changed: Tensor, texts: Sequence[Text]) -> Tensor:
        """Eq. (1) to (4) and the processors that truncate."""
        scores = self._tempered(changed)
        for processor in self.truncations:
            scores = processor.process(scores, texts)
        return scores

    def _tempered(self, changed: Tensor) -> Tensor:
        config = self.config
        return tempered(changed, config.temperature, config.top_k, config.top_p, config.min_p)

    def _changed(self, logits: Tensor, texts: Sequence[Text]) -> Tensor:
        """Eq. (0)."""
        for processor in self.changes:
            logits = processor.process(logits, texts)
        if self.changes and bool((logits == -math.inf).all(-1).any()):
            names = ", ".join(processor.name for processor in self.changes)
            raise Exhausted(f"no token is left to write: all are banned by {names}")
        return logits


def _check_alone(config: Config, truncations: Sequence[Processor]) -> None:
    """A processor that steers by itself what is truncated, such as mirostat, admits no other truncation."""
    options = [name for name in ("top_k", "top_p", "min_p") if getattr(config, name) is not None]
    for processor in truncations:
        others = options + [p.name for p in truncations if p is not processor]
        if processor.alone and others:
            raise ValueError(f"{processor.name} truncates the law by itself; got {', '.join(others)} beside it")
        if processor.remembers and config.temperature == 0:
            raise ValueError(f"{processor.name} steers what is drawn and needs a temperature above 0; got 0")


def reference(logits: Sequence[float], config: Config) -> list[float]:
    """The probability of every token of one row, by the definitions."""
    q = _normalised({v: math.exp((logit - max(logits)) / config.temperature) for v, logit in enumerate(logits)})
    ranked = sorted(q, key=lambda v: (-q[v], v))
    if config.top_k is not None:
        q = _normalised({v: q[v] for v in ranked[: config.top_k]})
    if config.top_p is not None:
        ranked = [v for v in ranked if v in q]
        q = _normalised({v: q[v] for i, v in enumerate(ranked) if sum(q[u] for u in ranked[:i]) < config.top_p})
    if config.min_p is not None:
        q = _normalised({v: p for v, p in q.items() if p >= config.min_p * max(q.values())})
    return [q.get(v, 0.0) for v in range(len(logits))]


def _normalised(weights: dict[int, float]) -> dict[int, float]:
    total = sum(weights.values())
    return {v: weight / total for v, weight in weights.items()}
