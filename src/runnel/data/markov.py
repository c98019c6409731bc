"""A random Markov chain: the smallest language whose best possible loss is known exactly.

Items x_t in [0, V) with P(x_t | x_{t-k} .. x_{t-1}) = P[c, x], c the context as a base-V number, rows of P drawn from a
symmetric Dirichlet; rows of a batch start from the stationary law pi of the contexts.

    pi = pi M,  M[c, (c V + x) mod V^k] = P[c, x]                                                     (1)
    entropy rate  h = - sum_c pi_c sum_x P[c, x] ln P[c, x]                                           (2)
    with m < k items seen, the best loss is H_{m+1} - H_m, H_m the entropy of m items under pi        (3)

(1) and (2) are textbook (Cover and Thomas, Elements of Information Theory, chapter 4).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from runnel.data._generated import Generated
from runnel.data._keyed import TASK, generator
from runnel.types import Batch

PAPERS: dict[str, str] = {}

_MOST_CONTEXTS = 1024


@dataclass(frozen=True)
class Config:
    """vocab: V. order: k, items that the next one depends on. concentration: of the Dirichlet, small is predictable."""

    vocab: int = 8
    order: int = 1
    concentration: float = 0.3
    valid_batches: int = 8

    def __post_init__(self) -> None:
        if self.vocab < 2 or self.order < 1 or self.vocab**self.order > _MOST_CONTEXTS:
            limit = f"vocab >= 2, order >= 1 and vocab**order <= {_MOST_CONTEXTS}"
            raise ValueError(f"markov needs {limit}; got vocab={self.vocab}, order={self.order}")
        if not 0.01 <= self.concentration <= 1000:
            raise ValueError(f"concentration must be in [0.01, 1000]; got {self.concentration}")


class Source(Generated):
    """Batches of the chain that `seed` draws. transitions: P, (V^k, V). stationary: pi, (V^k,)."""

    def __init__(self, config: Config, length: int, batch_size: int, seed: int = 0) -> None:
        super().__init__(config, length, batch_size, seed)
        self.vocab_size = config.vocab
        self.transitions = _draw(config, generator(seed, TASK))
        self.stationary = stationary(self.transitions)
        self.facts = self._facts()

    def draw_batch(self, rng: np.random.Generator) -> Batch:
        vocab, order, contexts = self.config.vocab, self.config.order, len(self.transitions)
        context = rng.choice(contexts, size=self.batch_size, p=self.stationary)
        items = np.empty((self.batch_size, self.length + 1 + order), dtype=np.int64)
        for place in range(order):
            items[:, place] = context // vocab ** (order - 1 - place) % vocab
        steps = np.cumsum(self.transitions, axis=1)
        for place in range(order, items.shape[1]):
            drawn = rng.random((self.batch_size, 1))
            items[:, place] = (drawn >= steps[context, :-1]).sum(1)
            context = (context * vocab + items[:, place]) % contexts
        rows = torch.from_numpy(items[:, : self.length + 1])
        return Batch(rows[:, :-1].contiguous(), rows[:, 1:].contiguous())

    def _facts(self) -> dict[str, Any]:
        rate = float(self.stationary @ [_entropy(row) for row in self.transitions])
        law = self.stationary.reshape((self.config.vocab,) * self.config.order)
        blocks = [_entropy(law.sum(tuple(range(m, self.config.order)))) for m in range(self.config.order + 1)]
        first = [blocks[m + 1] - blocks[m] for m in range(1, self.config.order)][: self.length]  # (3)
        return {
            "entropy_rate_nats": rate,
            "optimal_nats": (sum(first) + rate * (self.length - len(first))) / self.length,
            "unigram_nats": blocks[1],
            "chance_nats": float(np.log(self.config.vocab)),
        }


def stationary(transitions: NDArray[np.float64]) -> NDArray[np.float64]:
    """The law pi of (1) for transitions (V^k, V), from the linear system with one equation replaced by sum = 1."""
    contexts, vocab = transitions.shape
    moves = np.zeros((contexts, contexts))
    here, item = np.indices((contexts, vocab))
    moves[here, (here * vocab + item) % contexts] = transitions
    system = moves.T - np.eye(contexts)
    system[-1] = 1
    law = np.linalg.solve(system, np.eye(contexts)[-1]).clip(min=0)
    return np.asarray(law / law.sum())


def _draw(config: Config, rng: np.random.Generator) -> NDArray[np.float64]:
    rows = rng.dirichlet([config.concentration] * config.vocab, size=config.vocab**config.order)
    rows = rows + 1e-6  # every transition possible: one stationary law, and no infinite loss
    return np.asarray(rows / rows.sum(1, keepdims=True))


def _entropy(law: NDArray[np.float64]) -> float:
    positive = law[law > 0]
    return float(-(positive * np.log(positive)).sum())
