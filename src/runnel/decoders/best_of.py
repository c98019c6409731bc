"""Best of n: several texts are drawn, and the one that a ranker likes best is given.

Paper: "Time-Reversal Provides Unsupervised Feedback to LLMs" (2024, 2412.02626), of which `Backward` is the ranking
(sections 3 and 4); its baseline is "mean", the model's own perplexity.

    y_1 .. y_N ~ the law of a decoder;   y* = argmax_i rank(x, y_i)                          (1)
    "mean"    (1 / |y|) log p(y | x)      "total"    log p(y | x)                            (2)
    Forward   (1 / |y|) log p'(y | x)     of another model p'                                (3)
    Backward  log p_back(x reversed | y reversed)                                            (4)

p_back is a model trained on texts whose tokens are reversed: what would have been asked, given the answer (without the
token that ended it). Sample 0 is what the decoder writes with the row's seed, sample i with a seed made of it; all grow
in one call. Rankers that are models read each row's texts in a call more, which is not counted.

| here | paper |
|---|---|
| samples, Backward | N, TRLM-Ba |
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, Protocol

from torch import Tensor

from runnel import catalog
from runnel.decoders import Decoder
from runnel.model import Model
from runnel.prefill import prefill_scored
from runnel.search import Beginning, Branches, Grow, Hypothesis, Search, Task

PAPERS = {"Time-Reversal Provides Unsupervised Feedback to LLMs": "2412.02626"}
LOSSLESS = False


class Ranker(Protocol):
    def rank(self, prompt: Sequence[int], answers: Sequence[Sequence[int]], stops: frozenset[int]) -> list[float]:
        """How good each answer to the prompt is; larger is better."""


@dataclass(frozen=True)
class Forward:
    """Eq. (3)."""

    model: Model

    def rank(self, prompt: Sequence[int], answers: Sequence[Sequence[int]], stops: frozenset[int]) -> list[float]:
        scored = _logprobs(self.model, [[*prompt, *answer] for answer in answers])
        return [sum(own[-len(answer) :]) / len(answer) for own, answer in zip(scored, answers, strict=True)]


@dataclass(frozen=True)
class Backward:
    """Eq. (4). begin: the token that every reversed text began with in training."""

    model: Model
    begin: int

    def rank(self, prompt: Sequence[int], answers: Sequence[Sequence[int]], stops: frozenset[int]) -> list[float]:
        bare = [answer[:-1] if answer[-1] in stops else answer for answer in answers]
        scored = _logprobs(self.model, [[self.begin, *reversed([*prompt, *answer])] for answer in bare])
        return [sum(own[-len(prompt) :]) for own in scored]


@dataclass(frozen=True)
class Config:
    """samples >= 1. decoder: a page of `decoders/` that draws, by name or Config."""

    samples: int = 8
    decoder: str | Decoder | Any = "sample"
    ranker: Literal["mean", "total"] | Ranker = "mean"

    def __post_init__(self) -> None:
        if self.samples < 1:
            raise ValueError(f"samples of best_of must be at least 1; got {self.samples}")
        if isinstance(self.ranker, str) and self.ranker not in ("mean", "total"):
            raise ValueError(f"ranker of best_of must be mean, total or a Ranker; got {self.ranker!r}")


class BestOf(Search):
    config: Config

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        self.decoder = catalog.make("decoders", (Decoder, Search), config.decoder)
        if not isinstance(self.decoder, Decoder):
            raise ValueError(f"decoder of best_of must draw tokens; got {catalog.page_name(self.decoder)}, a search")

    def search(self, task: Task) -> Branches:
        texts, memories = [Beginning()] * self.config.samples, [task.text().memory] * self.config.samples
        found: dict[int, Hypothesis] = {}
        going, grown = list(range(len(texts))), (yield Grow([0], [task.newest]))
        at = [0] * len(texts)  # the branch of each sample that goes on: at first all share one
        while True:
            tokens = self._drawn(task, grown.logits[at], going, texts, memories)
            plain = grown.logits[at].log_softmax(-1)
            for branch, sample, token, law in zip(at, going, tokens, plain, strict=True):
                text = texts[sample].followed(token, float(law[token]), texts[sample].total + float(law[token]))
                texts[sample] = text
                if (ended := task.ended(text.tokens)) is not None:
                    found[sample] = text.hypothesis(0.0, grown.places[branch], ended)
            parents = [branch for branch, sample in zip(at, going, strict=True) if sample not in found]
            going = [sample for sample in going if sample not in found]
            if not going:
                return self._ranked(task, [found[sample] for sample in range(len(texts))])[: task.n]
            grown = yield Grow(parents, [texts[sample].tokens[-1] for sample in going])
            at = list(range(len(going)))

    def _drawn(
        self, task: Task, logits: Tensor, going: Sequence[int], texts: Sequence[Beginning], memories: list[Any]
    ) -> list[int]:
        """The next token of every sample that goes on."""
        written = [replace(task.text(texts[i].tokens), memory=memories[i]) for i in going]
        positions = [task.position + len(texts[i].tokens) for i in going]
        tokens = self.decoder.pick(logits, [sample_seed(task.seed, i) for i in going], positions, written)
        for sample, text, own, token in zip(going, written, logits, tokens, strict=True):
            memories[sample] = self.decoder.remember(text, own, token)
        return tokens

    def _ranked(self, task: Task, found: Sequence[Hypothesis]) -> list[Hypothesis]:
        """Eq. (1): best first."""
        ranker = self.config.ranker
        if ranker == "total" or ranker == "mean":
            ranks = [sum(own.logprobs) / (len(own.tokens) if ranker == "mean" else 1) for own in found]
        else:
            ranks = ranker.rank(task.prompt, [own.tokens for own in found], task.stops)
        scored = [replace(own, score=rank) for own, rank in zip(found, ranks, strict=True)]
        return sorted(scored, key=lambda own: -own.score)

    def check(self, vocab_size: int, stops: frozenset[int], limit: int, n: int) -> None:
        if n > self.config.samples:
            raise ValueError(f"n must be at most the {self.config.samples} samples of best_of; got {n}")
        self.decoder.check(vocab_size, stops, limit)


def sample_seed(seed: int, sample: int) -> int:
    """The seed of each sample; that of sample 0 is the row's own."""
    return (seed + sample * 0x9E3779B97F4A7C15) % 2**63  # the golden ratio's steps: far from the seeds of other rows


def _logprobs(model: Model, texts: Sequence[Sequence[int]]) -> list[list[float]]:
    return prefill_scored(model, texts, model.init_state(batch_size=len(texts)))[0]


def reference(ranks: Sequence[float]) -> int:
    """The sample that is given: the first of those that rank highest."""
    return next(i for i, rank in enumerate(ranks) if all(rank >= other for other in ranks))
