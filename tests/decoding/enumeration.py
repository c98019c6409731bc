"""Exact laws of speculative decoding: the real rule and the real tree builder, run for every outcome of their chances.

`Oracle` stands for all randomness. A run asks it for outcomes; `outcomes` runs again and again until every sequence of
outcomes was taken once, each with its probability.
"""

import itertools
import math

import torch

from runnel.decoders import sample
from runnel.rows import Forest, Row, Said, Walk
from runnel.trees import Sketch, grow_all


class Oracle:
    """Outcomes to take, then first ones. taken: (outcome, number of outcomes) so far; weight: their probability."""

    def __init__(self, outcomes):
        self.outcomes, self.taken, self.weight = outcomes, [], 1.0

    def choose(self, probabilities):
        possible = [i for i, p in enumerate(probabilities) if p > 0]
        if len(possible) == 1:
            self.weight *= probabilities[possible[0]]
            return possible[0]
        at = self.outcomes[len(self.taken)] if len(self.taken) < len(self.outcomes) else 0
        self.taken.append((at, len(possible)))
        self.weight *= probabilities[possible[at]]
        return possible[at]


def outcomes(run):
    """(what run(oracle) returned, its probability) for every sequence of outcomes."""
    script = []
    while script is not None:
        oracle = Oracle(script)
        found = run(oracle)
        yield found, oracle.weight
        done = [at + 1 < count for at, count in oracle.taken]
        last = max((i for i, more in enumerate(done) if more), default=None)
        script = None if last is None else [*[at for at, _ in oracle.taken[:last]], oracle.taken[last][0] + 1]


class Chance:
    """A number drawn uniformly from (0, 1), as far as rules look at it: scaled and compared once."""

    def __init__(self, oracle, scale=1.0):
        self.oracle, self.scale = oracle, scale

    def __mul__(self, factor):
        return Chance(self.oracle, self.scale * factor)

    def __lt__(self, threshold):
        below = 1.0 if self.scale == 0 else min(1.0, max(0.0, threshold / self.scale))
        return self.oracle.choose([below, 1 - below]) == 0


class EnumeratedWalk(Walk):
    oracle: Oracle

    def chances(self, count, stream=0):
        return [Chance(self.oracle) for _ in range(count)]

    def draw(self, law, stream=0):
        return self.oracle.choose((law / law.sum()).tolist())


class EnumeratedDraw:
    """Ranks of tokens drawn one after another; only the first `counts[ahead]` are chosen, builders see no more."""

    def __init__(self, oracle, counts):
        self.oracle, self.counts = oracle, counts

    def __call__(self, logits, ahead, path=(), branch=0):
        return self.oracle.choose(logits.softmax(-1).tolist())

    def scores(self, logits, ahead, path=(), branch=0):
        left, scores = logits.softmax(-1), torch.full_like(logits, -math.inf)
        for rank in range(min(self.counts[ahead], int((left > 0).sum()))):
            token = self.oracle.choose((left / left.sum()).tolist())
            scores[token], left[token] = -float(rank), 0.0
        return scores

    def chances(self, logits, ahead, path=()):
        return logits.softmax(-1)


def written_law(rule, builder, target, drafter, counts, length=3):
    """{text: probability} of the first `length` tokens when one round drafts by the builder and accepts by the rule,
    and whatever the round leaves open is written plainly. target, drafter: logits (V,) after a path of tokens.
    """
    vocab = target(()).numel()
    law = dict.fromkeys(itertools.product(range(vocab), repeat=length), 0.0)
    for text, p in outcomes(lambda oracle: _round(rule, builder, target, drafter, counts, length, oracle)):
        for rest in itertools.product(range(vocab), repeat=length - len(text)):
            whole = (*text, *rest)
            law[whole] += p * _plain(target, text, rest)
    return law


def accepted(rule, builder, target, drafter, counts, length=3):
    """Mean number of accepted drafts in one round."""
    runs = outcomes(lambda oracle: _round(rule, builder, target, drafter, counts, length, oracle))
    return sum((len(text) - 1) * p for text, p in runs)


def plain_law(target, length=3):
    vocab = target(()).numel()
    return {text: _plain(target, (), text) for text in itertools.product(range(vocab), repeat=length)}


def _plain(target, text, rest):
    return math.prod(float(target((*text, *rest[:i])).softmax(-1)[token]) for i, token in enumerate(rest))


def _round(rule, builder, target, drafter, counts, length, oracle):
    sketch = Sketch()

    def after(asked):
        return {row: torch.stack([drafter(tuple(sketch.path(node))) for node in nodes]) for row, nodes in asked.items()}

    grow_all(builder, [sketch], [EnumeratedDraw(oracle, counts)], [length - 1], after)
    row = Row(0, 0, [0], 3, length, frozenset(), sample.Sample(sample.Config()))
    forest = Forest([row], [sketch.draft()])
    logits = torch.stack([target(()), *[target(tuple(sketch.path(node))) for node in range(len(sketch.tokens))]])
    walk = EnumeratedWalk(row, 0, forest, Said(logits, torch.zeros(len(logits), 1)))
    walk.oracle = oracle
    rule.accept([walk])
    return tuple(row.tokens)


def tables(vocab=3, seed=0, sharpness=1.5, near=0.5):
    """Logits after every path for a target and a drafter that is partly right: two functions of the path."""

    def logits(path, kind):
        code = 1 + sum((token + 1) * (vocab + 1) ** i for i, token in enumerate(path))
        rng = torch.Generator().manual_seed(1000 * seed + 100 * kind + code)
        return sharpness * torch.randn(vocab, dtype=torch.float64, generator=rng)

    return (lambda path: logits(path, 0)), (lambda path: near * logits(path, 0) + (1 - near) * logits(path, 1))
