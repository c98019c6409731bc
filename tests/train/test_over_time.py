"""Chunks of time give the gradient of the whole row."""

import pytest
import torch
from small_run import make_model, make_source
from torch.nn.functional import dropout

import runnel
from runnel.objectives import next_token
from runnel.train import TrainConfig, fit
from runnel.train.over_time import backward
from runnel.types import Batch

PATTERNS = ["gla", "(mamba2, attention)", "gru", "gated_deltanet", "(mingru, attention(window=5))"]


def make_batch(length=30):
    torch.manual_seed(0)
    tokens = torch.randint(0, 11, (2, length + 1))
    segments = torch.zeros(2, length, dtype=torch.long)
    segments[0, 7:] = 1
    segments[0, 16:] = 2  # a document begins with a chunk
    segments[1, -3:] = -1
    targets = torch.where(segments < 0, runnel.IGNORE, tokens[:, 1:])
    return Batch(tokens[:, :-1], targets, segments)


def gradient(model):
    found = torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])
    model.zero_grad()
    return found


@pytest.mark.parametrize("pattern", PATTERNS)
def test_chunks_are_the_whole(pattern):
    model, batch = runnel.build(pattern, 11, 8).double(), make_batch()
    loss = next_token.loss(model, batch)
    loss.backward()
    wanted = gradient(model)
    for size in (1, 8, 13, 30, 99):
        found = backward(model, batch, size, 1 / batch.n_targets)
        assert found == pytest.approx(loss.item(), abs=1e-12)
        torch.testing.assert_close(gradient(model), wanted, rtol=0, atol=1e-12)


def test_dropout_falls_the_same_in_both_passes():
    model, batch = runnel.build("mingru", 11, 8).double(), make_batch()
    drawn = []

    def drop(module, args, output):
        drawn.append(dropout(torch.ones(8), 0.5))
        return output

    model.embed.register_forward_hook(drop)
    backward(model, batch, 10, 1.0)
    first, second = drawn[:2], drawn[2:][::-1]
    assert len(second) == 3 and all(torch.equal(a, b) for a, b in zip(first, second, strict=False))
    assert not torch.equal(first[0], first[1])


def test_a_run_in_chunks_is_the_run(text, tmp_path):
    losses = []
    for chunk in (None, 7):
        reports = []
        model, config = make_model(noisy=False).double(), TrainConfig(steps=4, accumulate=2, chunk=chunk)
        fit(model, make_source(text), tmp_path / str(chunk), config, reports.append)
        losses.append([report.loss for report in reports])
    assert losses[0] == pytest.approx(losses[1], abs=1e-12)


def test_what_is_held_does_not_grow_with_the_row():
    model, tokens = runnel.build("gla", 11, 8), torch.randint(0, 11, (1, 1025))
    held = []

    def watch(length):
        largest = 0

        def pack(x):
            nonlocal largest, now
            now += x.numel()
            largest = max(largest, now)
            return x

        now = 0

        def fresh(module, args):
            nonlocal now
            now = 0

        handle = model.register_forward_pre_hook(fresh)
        with torch.autograd.graph.saved_tensors_hooks(pack, lambda x: x):
            backward(model, Batch(tokens[:, :length], tokens[:, 1 : length + 1]), 64, 1.0)
        handle.remove()
        held.append(largest)

    for length in (128, 1024):
        watch(length)
    assert held[0] == held[1] > 0


def test_only_next_token_can_be_learned_in_chunks():
    with pytest.raises(ValueError, match="chunk needs the objective next_token; got medusa"):
        TrainConfig(steps=1, objective="medusa", chunk=8)
