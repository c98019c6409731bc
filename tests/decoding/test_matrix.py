"""The matrix: every drafter x every acceptance rule x every mixer and three hybrids, and nothing left out.

The quick part holds the hybrids to all of it, and every mixer to every fourth drafter and one rule, so that every
drafter and every rule meets a dozen mixers. The thorough part is the whole matrix.
"""

import pytest

from runnel import catalog
from runnel.generation import generate
from tests.decoding.support import CASES, HYBRIDS, PATTERNS, RAGGED, Branching, assert_same_state, sharp, stepped

RULES = [name for name in catalog.names("acceptance") if catalog.page("acceptance", name).LOSSLESS]
DRAFTERS = sorted(CASES)


def test_every_drafter_has_its_case():
    assert set(CASES) == set(catalog.names("drafters"))


def check(pattern, rule, names):
    """Greedy text and state, ragged and alone, are those of the literal loop with each of the drafters."""
    model = sharp(pattern)
    plain = [stepped(model, prompt, 8) for prompt in RAGGED]
    for drafter in [*[CASES[name](model) for name in names], Branching(None)]:
        options = {"max_new_tokens": 8, "decoder": "greedy", "drafter": drafter, "acceptance": rule}
        together = generate(model, RAGGED, prefill_chunk=4, **options)
        assert together.tokens == [tokens for tokens, _ in plain], drafter
        assert generate(model, RAGGED[2:], **options).tokens == together.tokens[2:], drafter
        for row, (_, state) in enumerate(plain):
            assert_same_state(together.state, row, state)


@pytest.mark.parametrize("pattern", PATTERNS)
def test_greedy_is_the_same_with_some_drafters(pattern):
    at = PATTERNS.index(pattern)
    check(pattern, RULES[at // 4 % len(RULES)], DRAFTERS[at % 4 :: 4])


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize(
    "pattern", [pytest.param(name, marks=() if name in HYBRIDS else pytest.mark.thorough) for name in PATTERNS]
)
def test_greedy_is_the_same_with_every_drafter_and_rule(pattern, rule):
    check(pattern, rule, DRAFTERS)
