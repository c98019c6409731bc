"""What a model costs whatever the machine: parameters, bytes of state, and operations for a token.

    FLOPs(L) = 2 (weights that multiply) + 2 (numbers of the state after L tokens)                    (1)

One multiplication and one addition for every weight, and for every number of the state, which a step reads once. That
is exact for attention's products (a state of 2 L D numbers, 4 L D operations) and leaves out decays and updates of
recurrent states, which are of the same order as reading them. All experts of a mixture are counted.
"""

from __future__ import annotations

import torch
from torch import nn

from runnel.model import Model
from runnel.state import leaves

MEASURED = (512, 1024)
"""Lengths at which a state is measured; longer ones follow from its growth between them (windows up to the first)."""
CONTEXT = 1024
"""The length L of (1)."""


def parameters(model: Model) -> int:
    return sum(p.numel() for p in model.parameters())


def flops_per_token(model: Model) -> float:
    """Equation (1): one token decoded after CONTEXT others."""
    tables = sum(m.weight.numel() for m in model.modules() if isinstance(m, nn.Embedding))
    return 2.0 * (parameters(model) - tables) + 2.0 * _numbers(model)


@torch.no_grad()
def sizes(model: Model, lengths: list[int]) -> list[int]:
    """Bytes of one row's state after so many tokens, the count of tokens aside."""
    found, state, at = [], model.init_state(1), 0
    for length in MEASURED:
        _, state = model.features(_inputs(model, length - at), state)
        found.append(sum(leaf.nbytes for leaf in leaves(state.layers)))
        at = length
    growth = (found[1] - found[0]) / (MEASURED[1] - MEASURED[0])
    return [round(found[1] + growth * (length - MEASURED[1])) for length in lengths]


@torch.no_grad()
def _numbers(model: Model) -> int:
    """Numbers of one row's state after CONTEXT tokens; positions, which are integers, are not multiplied."""
    _, state = model.features(_inputs(model, CONTEXT))
    return sum(leaf.numel() for leaf in leaves(state.layers) if leaf.is_floating_point())


def _inputs(model: Model, length: int) -> torch.Tensor:
    if model.config.vocab_size is not None:
        return torch.zeros(1, length, dtype=torch.long)
    return torch.zeros(1, length, model.config.outcomes)
