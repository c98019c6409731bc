"""What every drafter must show: text that does not depend on it, and fewer calls where the text repeats itself."""

import pytest
import torch

from runnel.drafters import (
    adaptive,
    corpus,
    lookahead,
    prompt_lookup,
    suffix,
    token_recycling,
)
from runnel.generation import generate
from tests.decoding.support import CASES, RAGGED, sharp, stepped

PATTERNS = ("mingru", "mamba2, attention(window=5)", "gated_deltanet, mingru, attention")


@pytest.mark.parametrize("pattern", PATTERNS)
@pytest.mark.parametrize("name", sorted(CASES))
def test_the_same_seed_writes_the_same_text_with_any_drafter(name, pattern):
    model = sharp(pattern)
    options = {"temperature": 0.9, "top_k": 4, "top_p": 0.95, "max_new_tokens": [12, 5, 17]}
    plain = generate(model, RAGGED, seed=[3, 5, 8], **options)
    assert len({tuple(tokens) for tokens in plain.tokens}) == 3
    drafter = CASES[name](model)
    together = generate(model, RAGGED, seed=[3, 5, 8], drafter=drafter, prefill_chunk=3, **options)
    assert together.tokens == plain.tokens
    torch.testing.assert_close(torch.tensor(together.logprobs[2]), torch.tensor(plain.logprobs[2]), rtol=0, atol=1e-9)
    alone = generate(model, RAGGED[2:], seed=[8], drafter=drafter, **{**options, "max_new_tokens": 17})
    assert alone.tokens == plain.tokens[2:]


REPETITIVE = {
    "lookahead": (lookahead.Config(), 1.3),
    "adaptive": (adaptive.Config(), 1.3),
    "corpus": (corpus.Config(), 1.5),
    "prompt_lookup": (prompt_lookup.Config(), 1.3),
    "suffix": (suffix.Config(), 1.5),
    "token_recycling": (token_recycling.Config(), 1.3),
}
"""Drafters with the tokens per call that they must exceed on text that repeats itself."""


@pytest.mark.parametrize("pattern", ["attention", "mamba2"])
@pytest.mark.parametrize("name", sorted(REPETITIVE))
def test_repetitive_text_takes_fewer_calls(name, pattern):
    model, (drafter, least) = sharp(pattern, vocab_size=32), REPETITIVE[name]
    prompt, length = [1, 2, 3], 100  # greedy text of a small model runs into a cycle
    written = generate(model, [prompt], length, decoder="greedy", drafter=drafter)
    assert written.tokens[0] == stepped(model, prompt, length)[0]
    assert len(set(zip(written.tokens[0], written.tokens[0][1:], strict=False))) < length / 2
    assert length / written.stats["target_calls"] > least
