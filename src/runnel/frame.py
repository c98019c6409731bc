"""Frame: what stands around the mixers and blocks of a model. The default is that of most models made here; the fields
are the ways in which published models differ from it.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from runnel import catalog, patterns

Norm = nn.RMSNorm | nn.LayerNorm
PLACES = ("before", "around", "after", "through")


@dataclass(frozen=True)
class Frame:
    """norm: a page of `norms/` with its options, e.g. "rms(eps=1e-5)".

    place: where a mixer or block f has its norms: before (x + f(n(x))), around (x + n'(f(n(x)))), after (x + n(f(x))),
    through (n(x) + f(n(x))).
    carried: what the vector that it is added to is multiplied by.
    residual: what the output of a mixer or block is multiplied by before it is added.
    embedding: what a token's embedding is multiplied by.
    embedding_norm: a norm stands between the embedding and the first layer.
    positions: how many learned positions are added to the embeddings; a text cannot be longer.
    tied: the head's matrix is the embedding.
    """

    norm: str = "rms"
    place: str = "before"
    residual: float = 1.0
    carried: float = 1.0
    embedding: float = 1.0
    embedding_norm: bool = False
    positions: int | None = None
    tied: bool = False

    def __post_init__(self) -> None:
        if self.place not in PLACES:
            raise ValueError(f"place of a norm must be one of {', '.join(PLACES)}; got {self.place!r}")
        if self.positions is not None and self.positions < 1:
            raise ValueError(f"positions must be at least 1; got {self.positions}")

    def make_norm(self, width: int) -> Norm:
        part = patterns.parse_part(self.norm, "norms")
        page = catalog.page("norms", part.name)
        return catalog.class_in(page, (nn.RMSNorm, nn.LayerNorm))(width, part.config(page))


class Embedding(nn.Embedding):
    """Vectors of tokens, times a scale that is rounded to their dtype first, as in Gemma."""

    def __init__(self, vocab_size: int, width: int, scale: float = 1.0) -> None:
        super().__init__(vocab_size, width)
        self.scale = scale
        nn.init.normal_(self.weight, std=1 / scale)

    def forward(self, tokens: Int[Tensor, "*B"]) -> Float[Tensor, "*B D"]:
        return self.scaled(super().forward(tokens))

    def mixed(self, weights: Float[Tensor, "*B V"]) -> Float[Tensor, "*B D"]:
        """The weighted mean of the vectors of all tokens."""
        return self.scaled(weights.to(self.weight.dtype) @ self.weight)

    def scaled(self, vectors: Float[Tensor, "*B D"]) -> Float[Tensor, "*B D"]:
        return vectors if self.scale == 1 else vectors * torch.tensor(self.scale, dtype=vectors.dtype)


class Positions(nn.Embedding):
    """A learned vector of each of the first positions."""

    def __init__(self, count: int, width: int) -> None:
        super().__init__(count, width)
        nn.init.normal_(self.weight, std=0.1)

    @classmethod
    def holding(cls, vectors: Float[Tensor, "P D"]) -> Positions:
        """Given vectors, not copied."""
        with torch.device("meta"):
            made = cls(*vectors.shape)
        made.weight = nn.Parameter(vectors, requires_grad=False)
        return made

    def of(self, positions: Int[Tensor, "*B"], valid: Tensor | None) -> Float[Tensor, "*B D"]:
        """ValueError where a text is longer than there are positions. valid: false at padding."""
        seen = positions if valid is None else torch.where(valid, positions, 0)
        if int(seen.max()) >= self.num_embeddings:
            raise ValueError(
                f"this model has {self.num_embeddings} positions; got a text of {int(seen.max()) + 1} tokens"
            )
        return self(seen)
