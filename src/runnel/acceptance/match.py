"""Match: a draft is accepted when it is the very token that plain decoding writes.

    y_t = argmax_v score_t(v),  score_t given by the law, the row's seed and the position    (1)
    go on to the child that holds y_t; without one, y_t ends the walk                        (2)

With one seed the text is the same whatever the drafter, the batch and the chunks, not only its law: the draw is that of
`runnel.decoders`, and a draft only saves the call. A token that was given (a copy) is accepted exactly as often as by
rejection sampling; a drafter with a law of its own draws with the row's own noise, which keeps most of its acceptance
("Accelerating Large Language Model Decoding with Speculative Sampling", 2023, 2302.01318, is the rule with rejection).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from runnel.acceptance import Acceptance
from runnel.processors import Text
from runnel.rows import Row, Walk

PAPERS: dict[str, str] = {}
LOSSLESS = True
AT_ONCE = 1 << 14
"""Logits of a forest up to which tokens are picked after all its nodes, whether a walk comes by them or not."""


@dataclass(frozen=True)
class Config:
    """There is nothing to set."""


class Match(Acceptance):
    shares_noise = True

    def accept(self, walks: Sequence[Walk]) -> None:
        """The walks of one decoder together: after all nodes at once where that is little work, else step by step."""
        for group in _by_decoder(walks):
            if not group[0].row.decoder.reads_text and group[0].said.logits.numel() <= AT_ONCE:
                _walk_at_once(group)
                continue
            while walking := [walk for walk in group if walk.walking]:
                for walk, token, logprob in zip(walking, *_picked(walking), strict=True):
                    walk.step(token, logprob)  # eq. (2)

    def step(self, walk: Walk) -> None:
        (token,), (logprob,) = _picked([walk])
        walk.step(token, logprob)


def _by_decoder(walks: Sequence[Walk]) -> list[list[Walk]]:
    groups: dict[int, list[Walk]] = {}
    for walk in walks:
        groups.setdefault(id(walk.row.decoder), []).append(walk)
    return list(groups.values())


def _walk_at_once(walks: Sequence[Walk]) -> None:
    """Eq. (1) after every node of the walks' trees, before any is walked over: nothing in it depends on the text."""
    forest, rows = walks[0].forest, {walk.node: walk.row for walk in walks}
    nodes = [node for node, root in enumerate(forest.rows) if root in rows]
    own = [rows[forest.rows[node]] for node in nodes]
    positions = [row.position + forest.depths[node] for row, node in zip(own, nodes, strict=True)]
    picked = dict(zip(nodes, zip(*_picks(walks[0], nodes, own, positions, ()), strict=True), strict=True))
    for walk in walks:
        while walk.walking:
            walk.step(*picked[walk.node])  # eq. (2)


def _picked(walks: Sequence[Walk]) -> tuple[list[int], list[float]]:
    """Eq. (1) where walks of one decoder stand, and the log-probability of each token."""
    rows = [walk.row for walk in walks]
    positions, texts = [row.position for row in rows], [row.text() for row in rows]
    return _picks(walks[0], [walk.node for walk in walks], rows, positions, texts)


def _picks(
    walk: Walk, nodes: Sequence[int], rows: Sequence[Row], positions: Sequence[int], texts: Sequence[Text]
) -> tuple[list[int], list[float]]:
    """Eq. (1) after some nodes of a walk's forest, for the decoder of its row."""
    logits = walk.said.logits
    logits = logits if nodes == list(range(len(logits))) else logits[nodes]
    tokens = walk.row.decoder.pick(logits, [row.seed for row in rows], positions, texts)
    logprobs = logits.log_softmax(-1).gather(-1, torch.tensor(tokens)[:, None])
    return tokens, logprobs[:, 0].tolist()


def reference(walk: Walk) -> None:
    """One walk, by the definition."""
    while walk.walking:
        row = walk.row
        scores = row.decoder.scores(walk.logits[None], [row.seed], [row.position], [row.text()])[0].tolist()
        token = scores.index(max(scores))
        child = next((child for child in walk.children if walk.token(child) == token), None)
        walk.end(token) if child is None else walk.go(child)
