"""Reading text into a state: ragged rows, in chunks, with or without the probabilities of what is read."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from runnel.lineage import Lineage
from runnel.model import TextModel, TextReader
from runnel.state import State

CHUNK = 512


def prefill(model: TextReader, texts: Sequence[Sequence[int]], state: State, chunk: int = CHUNK) -> State:
    """The state after each row has read its text, which may be empty: one list of tokens per row of the state.

    chunk: most columns per call; memory grows with it, and the state does not depend on it but by rounding.
    """
    for _, tokens, lineage in _chunks(model, texts, state, chunk):
        _, state = model.features(tokens, state, lineage)
    return state


def prefill_hidden(
    model: TextReader, texts: Sequence[Sequence[int]], state: State, chunk: int = CHUNK
) -> tuple[list[Tensor], State]:
    """As `prefill`, with the hidden vectors (len(text), D) that the head would have seen after each token."""
    hidden: list[list[Tensor]] = [[] for _ in texts]
    for start, tokens, lineage in _chunks(model, texts, state, chunk):
        features, state = model.features(tokens, state, lineage)
        for row, text in enumerate(texts):
            hidden[row].append(features[row, : max(0, min(len(text) - start, tokens.shape[1]))])
    none = torch.zeros(0, model.config.d_model, device=model.device)
    return [torch.cat([none.to(own[0].dtype), *own]) if own else none for own in hidden], state


def prefill_scored(
    model: TextModel, texts: Sequence[Sequence[int]], state: State, chunk: int = CHUNK, top: int = 0
) -> tuple[list[list[float]], list[list[dict[int, float]]], State]:
    """Read every text but its last token, and say what the model made of it.

    Returns the log-probabilities of each text's tokens but the first, the `top` likeliest tokens in their places with
    their log-probabilities (likeliest first), and the state.
    """
    logprobs: list[list[float]] = [[] for _ in texts]
    tops: list[list[dict[int, float]]] = [[] for _ in texts]
    for start, tokens, lineage in _chunks(model, [text[:-1] for text in texts], state, chunk):
        logits, state = model(tokens, state, lineage)
        for row, text in enumerate(texts):
            nexts = torch.tensor(text[start + 1 : start + 1 + tokens.shape[1]], dtype=torch.long)
            law = logits[row, : len(nexts)].double().log_softmax(-1).cpu()
            logprobs[row] += law.gather(-1, nexts[:, None])[:, 0].tolist()
            if top:
                tops[row] += likeliest(law, top)
    return logprobs, tops, state


def likeliest(law: Tensor, count: int) -> list[dict[int, float]]:
    """The `count` likeliest tokens of log-probabilities (N, V), likeliest first."""
    found = law.topk(min(count, law.shape[-1]))
    rows = zip(found.indices.tolist(), found.values.tolist(), strict=True)
    return [dict(zip(tokens, logprobs, strict=True)) for tokens, logprobs in rows]


def _chunks(
    model: TextReader, texts: Sequence[Sequence[int]], state: State, chunk: int
) -> Iterator[tuple[int, Tensor, Lineage | None]]:
    """(where it starts, tokens (B, T), lineage of ragged rows) of each chunk."""
    assert len(texts) == state.batch_size
    for start in range(0, max(len(text) for text in texts), chunk):
        pieces = [text[start : start + chunk] for text in texts]
        width = max(len(piece) for piece in pieces)
        tokens = torch.tensor([[*piece, *[0] * (width - len(piece))] for piece in pieces], device=model.device)
        ragged = any(len(piece) < width for piece in pieces)
        yield start, tokens, _padded(pieces, width).to(model.device) if ragged else None


def _padded(pieces: Sequence[Sequence[int]], width: int) -> Lineage:
    taken = torch.tensor([len(piece) for piece in pieces])
    return Lineage.padded(torch.arange(width) < taken[:, None])
