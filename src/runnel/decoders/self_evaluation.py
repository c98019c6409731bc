"""Self-evaluation decoding: greedy, but where the model is of two minds it tries what would follow before it decides.

Paper: "SED: Self-Evaluation Decoding Enhances Large Language Models for Better Generation" (2024, 2405.16552).

    A place is chaotic when      E = - sum_v p(v) log p(v) > entropy   or   R = p_sec / p_max > ratio     (1)
    There the k likeliest tokens v are each followed greedily by up to `horizon` tokens (speculation); the model says
    how good what came of it is, p_se(v) in [0, 1] (evaluation); then, instead of the likeliest token, that with the
    largest propensity           s(v) = alpha p_se(v) + (1 - alpha) p(v)                                  (2)

p_se is the answer to a `Question` put behind the speculation, p(good) / (p(good) + p(bad)) of two tokens; without one,
the geometric mean of the probabilities of the speculation's tokens, which any model can give. The tries of a place grow
together, and all calls are counted. Deviation: the paper trains the model to evaluate and asks it in words.

| here | paper |
|---|---|
| candidates, entropy, ratio | k, delta_e, delta_r |
"""

from __future__ import annotations

import math
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import torch
from torch import Tensor

from runnel.processors import Processor
from runnel.search import Beginning, Branches, Grow, Grown, ProcessedSearch, Task, best_first

PAPERS = {"SED: Self-Evaluation Decoding Enhances Large Language Models for Better Generation": "2405.16552"}
LOSSLESS = False
Evaluation = Generator[Grow, Grown, Tensor]


@dataclass(frozen=True)
class Question:
    """tokens: what asks; good, bad: the tokens that answer."""

    tokens: Sequence[int]
    good: int
    bad: int


@dataclass(frozen=True)
class Config:
    """candidates >= 1, horizon >= 0, alpha in [0, 1]. Places above entropy (in nats) or ratio are chaotic."""

    candidates: int = 3
    horizon: int = 16
    alpha: float = 0.5
    ratio: float = 0.8
    entropy: float = math.inf
    question: Question | None = None
    processors: Sequence[str | Processor | Any] = ()

    def __post_init__(self) -> None:
        for name, least in (("candidates", 1), ("horizon", 0), ("entropy", 0), ("ratio", 0)):
            if not getattr(self, name) >= least:
                raise ValueError(f"{name} of self_evaluation must be at least {least}; got {getattr(self, name)}")
        if not 0 <= self.alpha <= 1:
            raise ValueError(f"alpha of self_evaluation must lie in [0, 1]; got {self.alpha}")
        if self.question is not None and not self.question.tokens:
            raise ValueError("the question of self_evaluation must have at least one token; got none")


class SelfEvaluation(ProcessedSearch):
    config: Config

    def search(self, task: Task) -> Branches:
        text, grown, at = Beginning(), (yield Grow([0], [task.newest])), 0
        while True:
            law = self.laws(grown.logits[at][None], [task.text(text.tokens)])
            candidates = [v for _, v in islice(best_first(law), self.config.candidates if self._chaotic(law[0]) else 1)]
            plain, place = grown.logits[at].log_softmax(-1), grown.places[at]
            tries = [text.followed(v, float(plain[v]), text.total + float(law[0, v])) for v in candidates]
            grown, at = (yield Grow([place] * len(tries), candidates)), 0
            if len(tries) > 1:
                good = yield from self._evaluated(task, text, tries, grown)
                propensity = self.config.alpha * good + (1 - self.config.alpha) * law[0, candidates].exp()  # eq. (2)
                at = int(propensity.argmax())
            text = tries[at]
            if (ended := task.ended(text.tokens)) is not None:
                return [text.hypothesis(text.total, place, ended)]

    def _chaotic(self, law: Tensor) -> bool:
        """Eq. (1)."""
        likeliest = law.topk(min(2, len(law))).values.exp()
        entropy = float(torch.special.entr(law.exp()).sum())
        return entropy > self.config.entropy or float(likeliest[-1] / likeliest[0]) > self.config.ratio

    def _evaluated(self, task: Task, text: Beginning, tries: Sequence[Beginning], grown: Grown) -> Evaluation:
        """p_se (k,) of tries: continuations of a text by one token, with what the model says after each."""
        texts, said, places = list(tries), list(grown.logits), list(grown.places)

        def read(which: Sequence[int], tokens: Sequence[int]) -> Generator[Grow, Grown, None]:
            grown = yield Grow([places[i] for i in which], tokens)
            for i, logits, place in zip(which, grown.logits, grown.places, strict=True):
                said[i], places[i] = logits, place

        everyone = going = list(range(len(tries)))
        for step in range(self.config.horizon):
            going = [i for i in going if task.ended(texts[i].tokens) is None]
            if step and going:
                yield from read(going, [texts[i].tokens[-1] for i in going])
            for i in going:
                law = self.laws(said[i][None], [task.text(texts[i].tokens)])[0]
                token = int(law.argmax())
                texts[i] = texts[i].followed(token, 0.0, texts[i].total + float(law[token]))
        lengths, question = [len(each.tokens) - len(text.tokens) for each in texts], self.config.question
        if question is None:
            means = [(each.total - text.total) / length for each, length in zip(texts, lengths, strict=True)]
            return torch.tensor(means, dtype=torch.float64).exp()
        if unread := [i for i in everyone if lengths[i] > 1]:
            yield from read(unread, [texts[i].tokens[-1] for i in unread])
        for token in question.tokens:
            yield from read(everyone, [token] * len(tries))
        return torch.stack(said)[:, [question.good, question.bad]].softmax(-1)[:, 0]

    def check(self, vocab_size: int, stops: frozenset[int], limit: int, n: int) -> None:
        super().check(vocab_size, stops, limit, n)
        question = self.config.question
        for token in [] if question is None else [*question.tokens, question.good, question.bad]:
            if not 0 <= token < vocab_size:
                raise ValueError(f"the question of self_evaluation needs tokens in [0, {vocab_size}); got {token}")


def reference(law: Callable[[Sequence[int]], Tensor], task: Task, config: Config) -> list[int]:
    """The text, from log-probabilities (V,) after any text: every speculation from scratch."""
    text: list[int] = []
    while task.ended(text) is None:
        after = law(text).tolist()
        ranked = sorted(range(len(after)), key=lambda v: (-after[v], v))
        entropy = -sum(math.exp(p) * p for p in after)
        chaotic = entropy > config.entropy or math.exp(after[ranked[1]] - after[ranked[0]]) > config.ratio
        propensities = []
        for token in ranked[: config.candidates if chaotic else 1]:
            whole, logprobs = [*text, token], [after[token]]
            while task.ended(whole) is None and len(logprobs) <= config.horizon:
                logprobs.append(float(law(whole).max()))
                whole.append(int(law(whole).argmax()))
            good = math.exp(sum(logprobs) / len(logprobs))
            if config.question is not None:
                answer = law([*whole, *config.question.tokens])[[config.question.good, config.question.bad]]
                good = float(answer.softmax(-1)[0])
            propensities.append(config.alpha * good + (1 - config.alpha) * math.exp(after[token]))
        text.append(ranked[propensities.index(max(propensities))])
    return text
