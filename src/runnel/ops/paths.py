"""Sums and products along the paths of a Lineage: what chunked and tree forms of the matrix-state scans share.

Every matrix-state scan needs, for tokens t and their ancestors j, the decay that j's write has suffered when t reads
it: exp of the sum of log-decays on the path from j (exclusive) to t. Inside a chunk of a sequence the ancestors of t
are the tokens before it; in a tree they are its path. Only that relation differs, so one form serves both.

Segment sums are accumulated directly, never as differences of long cumulative sums, and masked before exp.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from runnel import native
from runnel.lineage import Lineage
from runnel.native import scans

SAFE_SPAN = 40.0
"""Nats of decay within a chunk up to which exp(sum) is split into two factors of at most exp(20) each."""


@dataclass(frozen=True)
class Blocks:
    """The relations inside the n chunks of C tokens of a lineage. b is B, or 1 where all rows agree.

    reach: (b, n, 1, C, C) 0/1, column j is t or an ancestor of t. strict: the same without t itself.
    from_start: (b, n, 1, C, 1) 0/1, the path of t begins at the state before the chunk.
    to_end: (b, n, 1, C, 1) 0/1, j is an ancestor of the last token of the chunk, or that token.
    causal: the path of every token is the tokens before it, back to the state before the chunk.
    """

    size: int
    reach: Tensor
    strict: Tensor
    from_start: Tensor
    to_end: Tensor
    causal: bool

    @property
    def carries(self) -> Tensor:
        """(b, n, 1) 0/1: the state before the chunk still counts after it."""
        return self.from_start[..., -1, 0]

    def split(self, x: Tensor) -> Tensor:
        """(B, T, H, X) -> (B, n, H, C, X), zero-padded at the end (zero is the identity for keys and log-decays)."""
        batch, length, heads, width = x.shape
        count = -(-length // self.size)
        x = torch.nn.functional.pad(x, (0, 0, 0, 0, 0, count * self.size - length))
        return x.view(batch, count, self.size, heads, width).transpose(2, 3)


def join(y: Tensor, length: int) -> Tensor:
    """(B, n, H, C, X) -> (B, T, H, X): the inverse of `Blocks.split`."""
    batch, count, heads, size, width = y.shape
    return y.transpose(2, 3).reshape(batch, count * size, heads, width)[:, :length]


def blocks_of(lineage: Lineage, size: int, like: Tensor) -> Blocks:
    """Cut a chain into chunks of `size`; a tree is one chunk. The masks get the dtype of `like`."""
    if lineage.is_tree:
        return _blocks(lineage.ancestors[:, None], None, None, like, causal=False)
    size = min(size, lineage.length)
    causal = torch.ones(size, size, dtype=torch.bool, device=like.device).tril()
    if lineage.reset is None:
        return _blocks(causal[None, None], None, None, like, causal=True)
    count = -(-lineage.length // size)
    spare = count * size - lineage.length
    segment = torch.cat([lineage.segment, lineage.segment[:, -1:].expand(-1, spare)], dim=1).view(-1, count, size)
    before = torch.cat([torch.zeros_like(segment[:, :1, -1]), segment[:, :-1, -1]], dim=1)
    reach = (segment[..., :, None] == segment[..., None, :]) & causal
    return _blocks(reach, segment == before[..., None], segment == segment[..., -1:], like, causal=False)


def _blocks(reach: Tensor, from_start: Tensor | None, to_end: Tensor | None, like: Tensor, causal: bool) -> Blocks:
    reach = reach[:, :, None].to(like.dtype)
    size = reach.shape[-1]
    everyone = reach.new_ones(1, 1, 1, size, 1)
    return Blocks(
        size,
        reach,
        reach - torch.eye(size, dtype=reach.dtype, device=reach.device),
        everyone if from_start is None else from_start[:, :, None, :, None].to(like.dtype),
        everyone if to_end is None else to_end[:, :, None, :, None].to(like.dtype),
        causal,
    )


@dataclass(frozen=True)
class Decay:
    """Decay factors along the paths inside chunks.

    log: (B, n, H, C, 1) one per head, or (B, n, H, C, K) one per key channel, <= 0.
    """

    log: Tensor
    blocks: Blocks

    def from_start(self, inclusive: bool = True) -> Tensor:
        """(B, n, H, C, 1 or K): the decay of the state before the chunk when t reads it (with or without t's own)."""
        return (self._since_start if inclusive else self._before).exp() * self.blocks.from_start

    def to_end(self) -> Tensor:
        """(B, n, H, C, 1 or K): the decay of j's write at the end of the chunk; zero where it does not get there."""
        if self._in_cpp:
            return self._inclusive[..., -1, :, :]
        return (self.blocks.strict.mT @ self.log).exp() * self.blocks.to_end

    def whole(self) -> Tensor:
        """(B, n, H, K or 1, 1): the decay of the state over the whole chunk."""
        return self.log.sum(-2).exp()[..., None] * self.blocks.carries[..., None, None]

    def product(self, x: Tensor, y: Tensor, inclusive: bool = True) -> Tensor:
        """(B, n, H, C, C): sum over k of x_tk y_jk times the decay from j to t; zero where j is not on t's path.

        inclusive: t's own decay counts and j = t is on the path; otherwise neither.
        """
        if self.log.shape[-1] == 1:
            return (x @ y.mT) * (self._inclusive if inclusive else self._exclusive)[..., 0]
        if not self._splits:
            between = self._inclusive if inclusive else self._exclusive
            return torch.einsum("...tk,...tjk,...jk->...tj", x, between, y)
        x = x * ((self._since_start if inclusive else self._before) + SAFE_SPAN / 2).exp()
        y = y * (-SAFE_SPAN / 2 - self._since_start).exp()
        return (x @ y.mT).masked_fill((self.blocks.reach if inclusive else self.blocks.strict) == 0, 0)

    def mix(self, scores: Tensor, y: Tensor) -> Tensor:
        """(B, n, H, C, K): sum over j of scores_tj y_jk times the decay from j to t; only the j on t's path count."""
        if self.log.shape[-1] == 1:
            return (scores * self._inclusive[..., 0]) @ y
        if not self._splits:
            return torch.einsum("...tj,...tjk,...jk->...tk", scores, self._inclusive, y)
        y = y * (-SAFE_SPAN / 2 - self._since_start).exp()
        return (scores * self.blocks.reach @ y) * (self._since_start + SAFE_SPAN / 2).exp()

    # What several products of one call share, computed once.

    @cached_property
    def _since_start(self) -> Tensor:
        """(B, n, H, C, 1 or K): summed log-decay from the chunk's start to t, t's own included."""
        return self.log.cumsum(-2) if self.blocks.causal else self.blocks.reach @ self.log

    @cached_property
    def _before(self) -> Tensor:
        """The same without t's own."""
        return self.blocks.strict @ self.log

    @cached_property
    def _splits(self) -> bool:
        """Whether the span of every chunk is small enough for exp of a sum to be split into two factors."""
        return float(self._since_start.detach().min()) >= -SAFE_SPAN

    @property
    def _in_cpp(self) -> bool:
        """Whether decays that a head shares, along an ordinary sequence, are taken in C++."""
        return self.blocks.causal and self.log.shape[-1] == 1 and native.runs(self.log)

    @cached_property
    def _inclusive(self) -> Tensor:
        if self._in_cpp:
            return scans.decays(self.log[..., 0])[..., None]
        return self._between(self.blocks.reach)

    @cached_property
    def _exclusive(self) -> Tensor:
        return self._between(self.blocks.strict)

    def _between(self, rows: Tensor) -> Tensor:
        """(B, n, H, C, C, 1 or K): decay between j and t, every segment sum accumulated on its own."""
        terms = self.log[..., :, None, :] * self.blocks.strict[..., None]  # i, j, k: what i adds for every j before it
        sums = (rows @ terms.flatten(-2)).unflatten(-1, terms.shape[-2:])
        return sums.masked_fill(rows[..., None] == 0, -torch.inf).exp()
