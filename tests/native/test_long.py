"""Packed models over long texts: the same tokens whatever the drafter and the batch, and little lost by rounding."""

import math
import os
from pathlib import Path

import pytest
import torch
from torch.nn.functional import cross_entropy

import runnel
from runnel import native

pytestmark = [
    pytest.mark.thorough,
    pytest.mark.skipif(not native.available(), reason="the extension was not built"),
]
DRAFTERS = ("auto", "suffix", "prompt_lookup", "token_recycling", "adaptive", "lookahead", "jacobi")
LENGTH = 2000


@pytest.fixture(scope="module", params=["bf16", "int8"])
def packed(request):
    model = runnel.build("(mamba2, mingru, attention(window=32))", vocab_size=13, d_model=16, seed=0)
    return runnel.pack(model, request.param)


@pytest.fixture(scope="module", params=["greedy", "sample"])
def plain(request, packed):
    """The decoder, prompts, and what plain decoding writes after each of them alone."""
    prompts = [[row + 1, 3, 5, 7, 3, 5] for row in range(8)]
    written = [
        runnel.generate(packed, [p], LENGTH, decoder=request.param, seed=11 + i).tokens[0]
        for i, p in enumerate(prompts)
    ]
    return request.param, prompts, written


@pytest.mark.parametrize("drafter", DRAFTERS)
@pytest.mark.timeout(900)
def test_two_thousand_tokens_are_the_same_with_any_drafter(packed, plain, drafter):
    decoder, prompts, written = plain
    drafted = runnel.generate(packed, prompts[:1], LENGTH, decoder=decoder, drafter=drafter, seed=11)
    assert drafted.tokens[0] == written[0]


@pytest.mark.parametrize("drafter", [None, "auto"])
@pytest.mark.timeout(900)
def test_two_thousand_tokens_are_the_same_in_a_batch(packed, plain, drafter):
    decoder, prompts, written = plain
    together = runnel.generate(packed, prompts, LENGTH, decoder=decoder, drafter=drafter, seed=11)
    assert together.tokens == written


@pytest.fixture(scope="module")
def trained():
    """A small model that has learned some Python, and text that it has not read."""
    folder = Path(os.__file__).parent
    text = torch.tensor(list(b"".join((folder / f"{n}.py").read_bytes() for n in ("argparse", "typing", "inspect"))))
    model = runnel.build("(mamba2, attention)", vocab_size=256, d_model=96, seed=0)
    optimiser = torch.optim.AdamW(model.parameters(), lr=3e-3)
    generator = torch.Generator().manual_seed(0)
    for step in range(250):
        starts = torch.randint(0, len(text) - 40_000, (16,), generator=generator)
        rows = torch.stack([text[s : s + 129] for s in starts.tolist()])
        loss = cross_entropy(model(rows[:, :-1])[0].flatten(0, 1), rows[:, 1:].flatten())
        for group in optimiser.param_groups:
            group["lr"] = 3e-3 * min(1, (250 - step) / 100)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    return model.eval(), text[-8193:]


@pytest.mark.timeout(900)
def test_rounded_weights_predict_as_well(trained):
    model, text = trained
    rows = text[:8192].view(16, 512)

    def perplexity(engine):
        with torch.no_grad():
            logits = engine(rows[:, :-1])[0]
        return math.exp(cross_entropy(logits.flatten(0, 1), rows[:, 1:].flatten()))

    exact = perplexity(model)
    assert exact < 20, "the model has learned nothing"
    assert perplexity(runnel.pack(model, "f32")) == pytest.approx(exact, rel=1e-4)
    assert perplexity(runnel.pack(model, "bf16")) <= 1.01 * exact
    assert perplexity(runnel.pack(model, "int8")) <= 1.02 * exact
