"""What the demo proves of a model: one function in two forms, and a state that does not grow like a cache."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

    from runnel.model import Model

MEASURED = (1000, 2000)
"""Tokens after which the state is measured."""


@dataclass(frozen=True)
class Agreement:
    """The parallel form beside the recurrent one. difference: largest of any logit. same: positions with the same
    likeliest token, of `tokens`.
    """

    dtype: str
    difference: float
    same: int
    tokens: int


def agreements(model: Model, tokens: Tensor) -> list[Agreement]:
    """Both forms over the tokens (1, T), in float32 and float64."""
    return [_agreement(model, tokens), _agreement(copy.deepcopy(model).double(), tokens)]


def _agreement(model: Model, tokens: Tensor) -> Agreement:
    import torch

    with torch.no_grad():
        parallel, _ = model(tokens)
        recurrent = recurrent_logits(model, tokens)
    same = int((parallel.argmax(-1) == recurrent.argmax(-1)).sum())
    dtype = str(parallel.dtype).removeprefix("torch.")
    return Agreement(dtype, float((parallel - recurrent).abs().max()), same, tokens.shape[1])


def recurrent_logits(model: Model, tokens: Tensor) -> Tensor:
    """Logits (1, T, V), one token a call."""
    import torch

    state, steps = model.init_state(1), []
    for token in tokens.split(1, dim=1):
        logits, state = model(token, state)
        steps.append(logits)
    return torch.cat(steps, dim=1)


def written_in_parallel(model: Model, prompt: list[int], count: int) -> list[int]:
    """Greedy tokens, the whole text read anew for each of them: the slow way, without any state."""
    import torch

    text = list(prompt)
    with torch.no_grad():
        for _ in range(count):
            logits, _ = model(torch.tensor([text]))
            text.append(int(logits[0, -1].argmax()))
    return text[len(prompt) :]


def state_sizes(model: Model, tokens: Tensor, lengths: list[int]) -> list[int]:
    """Bytes of the state of one row after so many tokens: a line through two measurements."""
    first, second = MEASURED
    if tokens.shape[1] < second:
        raise ValueError(f"the state is measured after {second} tokens; got a text of {tokens.shape[1]}")
    import torch

    with torch.no_grad():
        _, state = model.features(tokens[:, :first])
        at_first = state.nbytes
        _, state = model.features(tokens[:, first:second], state)
    growth = (state.nbytes - at_first) / (second - first)
    return [round(at_first + growth * (length - first)) for length in lengths]


def cache_size(model: Model, length: int) -> int:
    """Bytes of the keys and values that attention in every layer of this shape keeps, in float32."""
    return len(model.layers) * 2 * model.config.d_model * 4 * length
