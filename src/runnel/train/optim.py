"""Optimisers built from what the model says about its parameters, and their state by parameter name.

AdamW (Decoupled Weight Decay Regularization, 2017, 1711.05101) and Muon (K. Jordan et al., Muon: An optimizer for
hidden layers in neural networks, 2024, kellerjordan.github.io/posts/muon) are PyTorch's own. Muon takes the groups
that the model marks `matrix=True`, AdamW the rest. Muon's update is scaled by 0.2 sqrt(max(rows, columns)), as in
Muon is Scalable for LLM Training (2025, 2502.16982): it then has the size of an AdamW update, so one learning rate and
one weight decay serve both. A fused projection (q, k and v in one matrix) is orthogonalised as the one matrix it is.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor
from torch.optim import AdamW, Muon, Optimizer

from runnel.train import eight_bits
from runnel.train.config import TrainConfig
from runnel.train.learner import Learner
from runnel.train.sharding import like

MUON_MOMENTUM = 0.95


def build_optimizers(model: Learner, config: TrainConfig) -> list[Optimizer]:
    """One optimiser, or Muon and AdamW; together they hold every trainable parameter of the model once."""
    groups = [_options(group, config) for group in model.parameter_groups()]
    _check_complete(model, groups)
    matrices = [group for group in groups if group["params"] and group["muon"]]
    rest = [group for group in groups if group["params"] and not group["muon"]]
    optimizers: list[Optimizer] = []
    if matrices:
        optimizers.append(Muon(matrices, lr=config.lr, momentum=MUON_MOMENTUM, adjust_lr_fn="match_rms_adamw"))
    if rest:
        optimizers.append(_adamw(rest, config))
    return optimizers


def set_lr(optimizers: Sequence[Optimizer], lr: float) -> None:
    """Give each group `lr` times its own scale."""
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            rate = lr * group["lr_scale"]
            group["lr"] = group["lr"].fill_(rate) if isinstance(group["lr"], Tensor) else rate


def named_state(optimizers: Sequence[Optimizer]) -> dict[str, Tensor]:
    """The optimisers' state as {"parameter name/buffer name": tensor}; shares memory with the optimisers."""
    named: dict[str, Tensor] = {}
    for optimizer in optimizers:
        state = optimizer.state_dict()["state"]
        for index, name in _names(optimizer).items():
            for key, value in state.get(index, {}).items():
                named.update(eight_bits.parts(f"{name}/{key}", value))
    return named


def load_named_state(optimizers: Sequence[Optimizer], named: Mapping[str, Tensor]) -> None:
    """The inverse of `named_state`; the tensors are copied."""
    for optimizer in optimizers:
        index_of = {name: index for index, name in _names(optimizer).items()}
        state: dict[int, dict[str, Tensor]] = {}
        parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
        for key, value in named.items():
            name, _, buffer = key.rpartition("/")
            if name in index_of:
                state.setdefault(index_of[name], {})[buffer] = like(value.clone(), parameters[index_of[name]])
        whole = {index: eight_bits.joined(buffers, parameters[index]) for index, buffers in state.items()}
        optimizer.load_state_dict({**optimizer.state_dict(), "state": whole})


def _adamw(groups: Sequence[dict[str, Any]], config: TrainConfig) -> Optimizer:
    if config.optimizer == "adamw8bit":
        return eight_bits.adamw(groups, config.lr, config.betas)
    return AdamW(groups, lr=config.lr, betas=config.betas, fused=True)


def _options(group: Mapping[str, Any], config: TrainConfig) -> dict[str, Any]:
    return {
        "params": [(name, parameter) for name, parameter in group["params"] if parameter.requires_grad],
        "weight_decay": config.weight_decay if group["weight_decay"] else 0.0,
        "lr_scale": group["lr_scale"],
        "muon": group["matrix"] and config.optimizer == "muon",
    }


def _check_complete(model: Learner, groups: Sequence[Mapping[str, Any]]) -> None:
    grouped = [name for group in groups for name, _ in group["params"]]
    trainable = [name for name, parameter in model.named_parameters() if parameter.requires_grad]
    if not trainable:
        raise ValueError("the model must have at least one trainable parameter; got none")
    assert sorted(grouped) == sorted(trainable), f"parameter groups differ at {set(grouped) ^ set(trainable)}"


def _names(optimizer: Optimizer) -> dict[int, str]:
    groups = optimizer.state_dict()["param_groups"]
    return {index: name for group in groups for index, name in zip(group["params"], group["param_names"], strict=True)}
