"""What the tests of all processors share: random logits, texts, and every drafter against plain decoding."""

import math

import torch

import runnel
from runnel.drafters import draft_model, suffix
from runnel.processors import Text
from tests.decoding.support import RAGGED, Branching, sharp


def logits_of(rows, outcomes=8, seed=0):
    return 2 * torch.randn(rows, outcomes, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def texts_of(rows, vocab=8, seed=0, stops=frozenset()):
    """Texts of few different tokens, some of them without a written one."""
    rng = torch.Generator().manual_seed(seed)

    def tokens(count):
        return torch.randint(0, vocab, (count,), generator=rng).tolist()

    return [Text(tokens(1 + row % 9), tokens(row % 13), stops) for row in range(rows)]


def assert_is(found, expected):
    torch.testing.assert_close(found, torch.tensor(expected, dtype=torch.float64), rtol=0, atol=1e-12)


def unchanged(processor, rows=30):
    logits = logits_of(rows)
    logits[:, 3] = -math.inf
    return torch.equal(processor.process(logits, texts_of(rows)), logits)


def assert_lossless(processors, **options):
    """The same text with every drafter, batch and chunk; another one than without the processors. Returns it."""
    model, options = sharp(), {"max_new_tokens": 24, "temperature": 1.5, "seed": [3, 5, 8], **options}
    plain = runnel.generate(model, RAGGED, processors=processors, **options)
    assert plain.tokens != runnel.generate(model, RAGGED, **options).tokens
    drafters = [suffix.Config(min_match=1, max_draft=5), Branching(None), draft_model.Config(model, max_draft=3)]
    for drafter in drafters:
        found = runnel.generate(model, RAGGED, processors=processors, drafter=drafter, prefill_chunk=3, **options)
        assert found.tokens == plain.tokens, drafter
        assert found.stats["accepted"] > 0, drafter
    steered = any(hasattr(p, "target") for p in processors)  # what was drafted does not move mirostat's bound
    if not steered and "eos" not in options:
        assert found.stats["accepted"] == found.stats["drafted"]  # the last drafter is the target itself
    alone = runnel.generate(model, RAGGED[2:], processors=processors, **{**options, "seed": [8]})
    assert alone.tokens == plain.tokens[2:]
    return plain.tokens
