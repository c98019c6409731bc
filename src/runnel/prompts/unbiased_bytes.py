"""Unbiased bytes: what a model of tokens says of the next byte, wherever the prompt was cut.

Paper: "Understanding and Mitigating Tokenization Bias in Language Models" (2024, 2406.16829), sections 3 and 4.

A prompt that ends inside a token is encoded as a text that training never showed: the model then gives next to nothing
to what in truth follows. The law of the bytes is free of that:

    P(x) = sum over the cover encodings t_1..t_k of x of P(t_1..t_k)                        (proposition 3.1)
    P(b | x) = P(x b) / P(x)

A cover encoding is one whose last token begins within x or right after it, and reaches to its end or beyond. What
stands before that token is the encoding that the codec itself gives, for no other occurs in training text; so there is
one cover for each place where the last token may begin and each token that fits, and one call of the model for all.

| code | paper |
|---|---|
| start | where the last token of a cover begins |
| way | t_1..t_(k-1), with what stands before the text |

Deviates: of a token that begins within a character nothing is known of the codec, so covers begin between characters.
Tokens that the codec would not have chosen as the last one are left to the model, which gives them what it gives them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import torch
from jaxtyping import Float
from torch import Tensor

from runnel.lineage import Lineage
from runnel.model import TextModel
from runnel.prefill import prefill

PAPERS = {"Understanding and Mitigating Tokenization Bias in Language Models": "2406.16829"}


class Pieces(Protocol):
    """What is used of a codec. token_bytes: the bytes of every token."""

    @property
    def token_bytes(self) -> Sequence[bytes]: ...
    def encode(self, text: bytes) -> list[int]: ...


@torch.no_grad()
def next_byte(model: TextModel, codec: Pieces, text: bytes, before: Sequence[int]) -> Float[Tensor, "256"]:
    """Log-probabilities of the byte after a text, given that there is one.

    before: tokens that stand before the text, at least one: nothing is known of the first token of all.
    """
    if not before:
        raise ValueError("before must have at least one token; got none")
    starts = _starts(codec, text)
    if not starts:
        raise ValueError("text must be UTF-8 but for the character that it ends in")
    ways = [[*before, *codec.encode(text[:start])] for start in starts]
    shared = _in_common(ways) - 1  # its probability is a factor of all covers
    nexts, covers = [], []
    for start, score, law in zip(starts, *_read(model, ways, shared), strict=True):
        rest = text[start:]
        fits = [
            token for token, piece in enumerate(codec.token_bytes) if len(piece) > len(rest) and piece.startswith(rest)
        ]
        nexts += [codec.token_bytes[token][len(rest)] for token in fits]
        covers.append(score + law[fits])
    found = torch.cat(covers)
    sums = torch.zeros(256, dtype=found.dtype).index_add(0, torch.tensor(nexts), (found - found.max()).exp())
    return (sums / sums.sum()).log()


def _starts(codec: Pieces, text: bytes) -> list[int]:
    """Where the last token of a cover may begin: not so early that none reaches the end, and between characters."""
    longest = max(map(len, codec.token_bytes))
    reached = range(max(0, len(text) - longest + 1), len(text) + 1)
    return [start for start in reached if _is_utf8(text[:start])]


def _in_common(ways: Sequence[Sequence[int]]) -> int:
    """How many tokens all ways begin with."""
    same = (len(set(tokens)) == 1 for tokens in zip(*ways, strict=False))
    return next((at for at, alike in enumerate(same) if not alike), min(map(len, ways)))


def _is_utf8(text: bytes) -> bool:
    try:
        text.decode()
    except UnicodeDecodeError:
        return False
    return True


def _read(
    model: TextModel, ways: Sequence[Sequence[int]], shared: int
) -> tuple[Float[Tensor, "W"], Float[Tensor, "W V"]]:
    """The log-probability of what every way has after its first `shared` + 1 tokens, and the law after its end."""
    state = prefill(model, [ways[0][:shared]], model.init_state(1)).fork([0] * len(ways))
    rests = [list(way[shared:]) for way in ways]
    width = max(map(len, rests))
    valid = torch.tensor([[at < len(rest) for at in range(width)] for rest in rests])
    tokens = torch.tensor([rest + [0] * (width - len(rest)) for rest in rests])
    laws = model(tokens, state, Lineage.padded(valid))[0].double().log_softmax(-1).cpu()
    picked = laws[:, :-1].gather(-1, tokens[:, 1:, None])[..., 0]
    scores = picked.masked_fill(~valid[:, 1:], 0.0).sum(1)
    return scores, laws[torch.arange(len(rests)), valid.sum(1) - 1]


def reference(model: TextModel, codec: Pieces, text: bytes, before: Sequence[int]) -> Float[Tensor, "256"]:
    """By the definition: P(x b) for every b, each cover read by itself."""
    total = torch.zeros(256, dtype=torch.float64)
    for byte in range(256):
        longer = text + bytes([byte])
        for start in range(len(longer)):
            way = [*before, *codec.encode(longer[:start])]
            laws = model(torch.tensor([way]))[0][0].double().softmax(-1)
            p = laws[torch.arange(len(before) - 1, len(way) - 1), way[len(before) :]].prod()
            fits = [token for token, piece in enumerate(codec.token_bytes) if piece.startswith(longer[start:])]
            total[byte] += p * laws[-1, fits].sum()
    return (total / total.sum()).log()
