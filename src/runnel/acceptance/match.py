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
from runnel.rows import Walk

PAPERS: dict[str, str] = {}
LOSSLESS = True


@dataclass(frozen=True)
class Config:
    """There is nothing to set."""


class Match(Acceptance):
    shares_noise = True

    def accept(self, walks: Sequence[Walk]) -> None:
        """All walks one step at a time, the rows of one decoder in one call."""
        while walking := [walk for walk in walks if walk.walking]:
            for group in _by_decoder(walking):
                for walk, token in zip(group, _picked(group), strict=True):
                    walk.step(token)  # eq. (2)

    def step(self, walk: Walk) -> None:
        walk.step(_picked([walk])[0])


def _by_decoder(walks: Sequence[Walk]) -> list[list[Walk]]:
    groups: dict[int, list[Walk]] = {}
    for walk in walks:
        groups.setdefault(id(walk.row.decoder), []).append(walk)
    return list(groups.values())


def _picked(walks: Sequence[Walk]) -> list[int]:
    """Eq. (1) for walks of one decoder."""
    rows = [walk.row for walk in walks]
    return rows[0].decoder.pick(
        torch.stack([walk.logits for walk in walks]),
        [row.seed for row in rows],
        [row.position for row in rows],
        [row.text() for row in rows],
    )


def reference(walk: Walk) -> None:
    """One walk, by the definition."""
    while walk.walking:
        row = walk.row
        scores = row.decoder.scores(walk.logits[None], [row.seed], [row.position], [row.text()])[0].tolist()
        token = scores.index(max(scores))
        child = next((child for child in walk.children if walk.token(child) == token), None)
        walk.end(token) if child is None else walk.go(child)
