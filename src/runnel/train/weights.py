"""Weights by name: what of a model a checkpoint holds, averages of it, and the search for bad numbers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from runnel.train.sharding import like


def persistent(model: nn.Module) -> dict[str, Tensor]:
    """Parameters and saved buffers by name, each once (tied weights under their first name); shares memory."""
    saved = model.state_dict(keep_vars=True).keys()
    tensors: dict[str, Tensor] = dict(model.named_parameters())
    tensors.update({name: buffer for name, buffer in model.named_buffers() if name in saved})
    return tensors


def snapshot(model: nn.Module) -> dict[str, Tensor]:
    """A copy of the parameters by name."""
    return {name: parameter.detach().clone() for name, parameter in model.named_parameters()}


@torch.no_grad()
def overwrite(target: Mapping[str, Tensor], source: Mapping[str, Tensor]) -> None:
    """Copy tensors of the same names and shapes. ValueError names the first that does not fit."""
    for name in target.keys() | source.keys():
        wanted = tuple(target[name].shape) if name in target else None
        found = tuple(source[name].shape) if name in source else None
        if wanted != found:
            raise ValueError(f"{name} must have shape {wanted}; got {found}")
    for name, tensor in target.items():
        tensor.copy_(like(source[name], tensor))


@torch.no_grad()
def update_average(average: Mapping[str, Tensor], model: nn.Module, decay: float, step: int) -> None:
    """One step of the exponential moving average: average = d average + (1 - d) weights.

    d = min(decay, (1 + step) / (10 + step)): it rises, so that the first, untrained weights are soon forgotten.
    """
    decay = min(decay, (1 + step) / (10 + step))
    for name, parameter in model.named_parameters():
        average[name].lerp_(parameter, 1 - decay)


@contextmanager
def swapped(model: nn.Module, weights: dict[str, Tensor] | None) -> Iterator[None]:
    """The model with other weights (None: its own) for the length of the block; nothing is copied or rounded."""
    if weights is None:
        yield
        return
    _swap(model, weights)
    try:
        yield
    finally:
        _swap(model, weights)


def first_bad(tensors: Mapping[str, Tensor | None]) -> str | None:
    """The first tensor, in order, with a NaN or an infinity, as `weight[3, 5] is nan`; None when all are finite."""
    for name, tensor in tensors.items():
        if tensor is None or not tensor.is_floating_point() or bool(tensor.isfinite().all()):
            continue
        where = (~tensor.isfinite()).nonzero()[0].tolist()
        return f"{name}{where if where else ''} is {tensor[tuple(where)].item()}"
    return None


def _swap(model: nn.Module, weights: dict[str, Tensor]) -> None:
    for name, parameter in model.named_parameters():
        parameter.data, weights[name] = weights[name], parameter.data
