"""Sharding and recomputation: what of a model stays in memory. The function and its gradient are the same.

Sharding is PyTorch's FSDP2 (`fully_shard`): between uses every rank keeps its share of each layer's weights, gradients
and optimiser state; gradients are summed, not averaged, since `Ranks` has weighed the losses already. A checkpoint
holds whole tensors, so that a run goes on with any number of ranks, sharded or not.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from functools import partial

import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import (
    CPUOffloadPolicy,
    MixedPrecisionPolicy,
    OffloadPolicy,
    fully_shard,
    register_fsdp_forward_method,
)
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.utils.checkpoint import checkpoint

from runnel.links import share_weights
from runnel.model import Model, build

TREATMENT = ("weight_decay", "lr_scale")
"""What a mixer's page says of its parameters (`runnel.mixer.parameter`)."""


def recompute(model: Model) -> None:
    """From here on a layer's activations are computed again in the backward pass."""
    for layer in model.layers:
        layer.forward = partial(checkpoint, layer.forward, use_reentrant=False)


def shard(model: Model, devices: DeviceMesh, used_in: torch.dtype | None = None, offload: bool = False) -> None:
    """Cut every layer, and what is left, over all ranks, in place.

    used_in: what weights are gathered and multiplied in; gradients are summed, and weights kept, in what they are in.
    offload: shares wait in the CPU's memory, where the optimiser takes its step.
    """
    if share_weights(model.layers):  # a parameter is gathered with one layer, and is cut again after it
        raise ValueError(f"a model whose layers share weights cannot be sharded; got {model.config.pattern!r}")
    treatments = {name: vars(parameter) for name, parameter in model.named_parameters()}
    everyone = init_device_mesh(model.device.type, (devices.size(),))
    kept = next(model.parameters()).dtype
    precision = MixedPrecisionPolicy(param_dtype=used_in, reduce_dtype=kept)
    place = CPUOffloadPolicy(pin_memory=torch.cuda.is_available()) if offload else OffloadPolicy()
    for part in [*model.layers, model]:  # all are cut again after a forward pass: a validation leaves nothing whole
        cut = fully_shard(part, mesh=everyone, reshard_after_forward=True, mp_policy=precision, offload_policy=place)
        cut.set_gradient_divide_factor(1.0)
        cut.set_force_sum_reduction_for_comms(True)  # gloo sums, but cannot scale while it does
    register_fsdp_forward_method(model, "features")
    warnings.filterwarnings("ignore", message=".*returned a view tensor")  # a memory, never changed in place
    for name, parameter in model.named_parameters():  # FSDP2 made new ones
        for key in TREATMENT:
            if key in treatments[name]:
                setattr(parameter, key, treatments[name][key])


def whole(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Sharded tensors put together; all ranks must ask."""
    return {name: tensor.full_tensor() if isinstance(tensor, DTensor) else tensor for name, tensor in tensors.items()}


def own(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """This rank's share of sharded tensors."""
    return {name: tensor.to_local() if isinstance(tensor, DTensor) else tensor for name, tensor in tensors.items()}


def like(tensor: Tensor, pattern: Tensor) -> Tensor:
    """A whole tensor, cut as another is; scalars stay whole."""
    if not isinstance(pattern, DTensor) or tensor.shape != pattern.shape:
        return tensor
    return distribute_tensor(tensor.to(pattern.device), pattern.device_mesh, pattern.placements)


def unsharded(model: Model) -> Model:
    """A model of its own with the whole weights; all ranks must ask."""
    weights = whole(model.state_dict())
    plain = build(**model.config.to_dict()).to(device=model.device, dtype=next(iter(weights.values())).dtype)
    with torch.no_grad():
        plain.load_state_dict(weights)
    return plain


def is_sharded(model: nn.Module) -> bool:
    return any(isinstance(parameter, DTensor) for parameter in model.parameters())
