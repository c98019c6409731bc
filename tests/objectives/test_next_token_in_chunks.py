"""The loss and gradient of next_token, and no tensor as large as the logits of the batch."""

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

import runnel
from runnel.objectives import next_token, next_token_in_chunks
from runnel.train import TrainConfig
from runnel.types import IGNORE, Batch

V = 512


class Largest(TorchDispatchMode):
    """Remembers the most numbers that one tensor had."""

    def __init__(self):
        super().__init__()
        self.numbers = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        out = function(*args, **(kwargs or {}))
        made = out if isinstance(out, (tuple, list)) else [out]
        self.numbers = max([self.numbers, *[x.numel() for x in made if isinstance(x, torch.Tensor)]])
        return out


@pytest.fixture
def batch():
    tokens = torch.randint(0, V, (3, 65), generator=torch.Generator().manual_seed(0))
    targets = tokens[:, 1:].clone()
    targets[:, :9] = IGNORE
    return Batch(tokens[:, :-1], targets, (torch.arange(64) // 20).expand(3, 64))


def learned(objective, model, batch):
    model.zero_grad()
    with Largest() as largest:
        loss = objective.loss(model, batch)
        loss.backward()
    return loss.detach(), {name: p.grad.clone() for name, p in model.named_parameters()}, largest.numbers


@pytest.mark.parametrize("head", ["categorical", "categorical(cap=5)"])
def test_it_is_next_token_without_the_logits(batch, head, monkeypatch):
    monkeypatch.setattr(next_token_in_chunks, "AT_ONCE", 20 * V)
    model = runnel.build("gla", V, d_model=8, seed=0, head=head).double()
    wanted, gradients, largest = learned(next_token, model, batch)
    assert largest == 3 * 64 * V
    found, own, largest = learned(next_token_in_chunks, model, batch)
    assert largest <= 20 * V
    assert found.item() == pytest.approx(wanted.item(), abs=1e-12)
    for name, gradient in gradients.items():
        torch.testing.assert_close(own[name], gradient, atol=1e-12, rtol=1e-9)


def test_what_it_cannot_do_is_refused(batch):
    model = runnel.build("gla", V, d_model=8, head="self_terminating(eos=0)")
    with pytest.raises(ValueError, match="needs a head over tokens, the same at all positions; got self_terminating"):
        next_token_in_chunks.loss(model, batch)
    model = runnel.build("gla", V, d_model=8)
    with pytest.raises(ValueError, match="at least one target"):
        next_token_in_chunks.loss(model, Batch(batch.inputs, torch.full_like(batch.targets, IGNORE)))
    with pytest.raises(ValueError, match="objective next_token_in_chunks needs a model that is not sharded"):
        TrainConfig(steps=1, objective="next_token_in_chunks", shard=True)
