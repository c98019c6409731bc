"""What a step holds on one of several ranks, in bytes, counted on the tensors themselves."""

import torch

import runnel
from runnel.objectives import next_token
from runnel.plans._calibration import kept
from runnel.train import Ranks, TrainConfig, opened, optim, sharding
from runnel.types import Batch


def held(pattern, d_model, vocab, length, rows, mesh, shard):
    """parameters, gradients, optimizer, and activations with logits, of the rank."""
    with opened(mesh) as ranks:
        model = runnel.build(pattern, vocab, d_model, seed=0)
        if shard:
            sharding.shard(model, ranks.devices)
        return _held(model, Batch(*torch.zeros(2, rows, length, dtype=torch.long)), ranks)


def _held(model, batch, ranks):
    own = ranks.own(batch).batch if isinstance(ranks, Ranks) else batch
    local = list(sharding.own(dict(model.named_parameters())).values())
    activations = kept(lambda: next_token.loss(model, own), local)
    next_token.loss(model, own).backward()
    optimizers = optim.build_optimizers(model, TrainConfig(steps=1))
    for optimizer in optimizers:
        optimizer.step()
    gradients = sharding.own({name: p.grad for name, p in model.named_parameters()})
    return {
        "parameters": size(local),
        "gradients": size(gradients.values()),
        "optimizer": size(sharding.own(optim.named_state(optimizers)).values()),
        "activations": activations,
    }


def size(tensors):
    return sum(x.numel() * x.element_size() for x in tensors)
