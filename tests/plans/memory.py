"""What a step holds on one of several ranks, in bytes, counted on the tensors themselves."""

import torch

import runnel
from runnel.cli._calibrated import by_layer, measured
from runnel.cli.plan import workload
from runnel.objectives import next_token
from runnel.plans._calibration import kept
from runnel.train import TrainConfig, opened, optim, sharding
from runnel.types import Batch


def held(pattern, d_model, vocab, length, rows, mesh, shard, again):
    """parameters, gradients, optimizer, and activations with logits, of the rank; again: with recomputation."""
    with opened(mesh) as ranks:
        model = runnel.build(pattern, vocab, d_model, seed=0)
        own = ranks.own(Batch(*torch.zeros(2, rows, length, dtype=torch.long))).batch
        largest = max(by_layer(model, own)) if again else 0  # computed again, one at a time
        if again:
            sharding.recompute(model)
        if shard:
            sharding.shard(model, ranks.devices)
        return _held(model, own, largest)


def _held(model, own, largest):
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
        "activations": activations + largest,
    }


def foreseen(pattern, d_model, vocab, length, rows):
    """A measured workload; all ranks share the rows while it is measured."""
    with opened(None) as ranks:
        return measured(workload(pattern, d_model, None, vocab, length, rows), pattern, None, ranks)


def size(tensors):
    return sum(x.numel() * x.element_size() for x in tensors)
