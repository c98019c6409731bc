"""Mirostat: top-k whose k follows the text, so that its mean surprise stays at a target.

Paper: "Mirostat: A Neural Text Decoding Algorithm that Directly Controls Perplexity" (2020, 2007.14966), algorithm 1.

    s  = sum_i t_i b_i / sum_i t_i^2,  t_i = log((i+1)/i),  b_i = log(p_i / p_{i+1}),  i < m       (1)
    k  = (e 2^mu / (1 - N^-e))^(1/s),  e = s - 1                                                   (2)
    draw from the k likeliest tokens                                                               (3)
    mu <- mu - rate (S(y) - target),  S(y) = -log2 p(y),  mu = 2 target before the first token     (4)

p_1 >= p_2 >= ... is the law of a step, s the exponent of the Zipf law that fits its m likeliest tokens, and mu all that
is remembered of a row: a number of bits.

| code | paper |
|---|---|
| target, rate, fitted | tau, eta, m |
| outcomes | N: the tokens that can be written |

p is the law that arrives here, tempered and penalised; the other truncations are refused beside it. k is rounded, and
kept within 1 and N. Deviates: the authors' program adds 1 to k; algorithm 1 does not.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from runnel.ops.sampling import keep_top_k
from runnel.processors import Processor, Stage, Text

PAPERS = {"Mirostat: A Neural Text Decoding Algorithm that Directly Controls Perplexity": "2007.14966"}


@dataclass(frozen=True)
class Config:
    """target >= 0 in bits per token. rate >= 0. fitted >= 2."""

    target: float = 3.0
    rate: float = 0.1
    fitted: int = 100

    def __post_init__(self) -> None:
        for name in ("target", "rate"):
            if not 0 <= getattr(self, name) < math.inf:
                raise ValueError(f"{name} of mirostat must be a finite number >= 0; got {getattr(self, name)}")
        if self.fitted < 2:
            raise ValueError(f"fitted of mirostat must be at least 2; got {self.fitted}")


class Mirostat(Processor):
    config: Config
    stage = Stage.TRUNCATION
    alone = True
    remembers = True

    def process(self, logits: Tensor, texts: Sequence[Text]) -> Tensor:
        return torch.stack([keep_top_k(row, self._k(row, text)) for row, text in zip(logits, texts, strict=True)])

    def note(self, text: Text, logits: Tensor, token: int) -> float:
        surprise = -float(logits.log_softmax(-1)[token]) / math.log(2)
        return self._mu(text) - self.config.rate * (surprise - self.config.target)  # eq. (4)

    def _mu(self, text: Text) -> float:
        return text.memory.get(self.name, 2 * self.config.target)

    def _k(self, logits: Tensor, text: Text) -> int:
        outcomes = int(logits.isfinite().sum())
        likeliest = logits.topk(min(self.config.fitted, outcomes)).values
        t = torch.arange(1, len(likeliest) + 1, dtype=logits.dtype).log().diff()
        s = float(-(t * likeliest.diff()).sum() / (t * t).sum()) if outcomes > 1 else 1.0  # eq. (1)
        return _k_of(s, self._mu(text), outcomes)


def _k_of(s: float, mu: float, outcomes: int) -> int:
    """Eq. (2) in logarithms, so that a flat law (s = 0) and s = 1 are limits, not errors."""
    if outcomes == 1:
        return 1
    e, log_n = s - 1, math.log(outcomes)
    ratio = 1 / log_n if abs(e * log_n) < 1e-9 else e / -math.expm1(-e * log_n)
    log_k = (mu * math.log(2) + math.log(ratio)) / max(s, 1e-9)
    return max(1, round(math.exp(min(max(log_k, 0.0), log_n))))


def reference(logits: Sequence[float], mu: float, config: Config) -> tuple[list[float], int]:
    """One row: the logits that are left, and k, by the formulas as they are written."""
    ranked = sorted((logit for logit in logits if logit > -math.inf), reverse=True)
    fitted = ranked[: config.fitted]
    t = [math.log((i + 1) / i) for i in range(1, len(fitted))]
    b = [fitted[i - 1] - fitted[i] for i in range(1, len(fitted))]
    s = sum(x * y for x, y in zip(t, b, strict=True)) / sum(x * x for x in t)
    e = s - 1
    k = round((e * 2**mu / (1 - len(ranked) ** -e)) ** (1 / s))
    k = max(1, min(k, len(ranked)))
    return [logit if logit >= ranked[k - 1] else -math.inf for logit in logits], k
