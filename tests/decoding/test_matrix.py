"""The matrix: every drafter x every acceptance rule x every mixer and three hybrids, and nothing left out.

Rules that accept by chance meet the mixers beyond the first nine in the thorough part only.
"""

import pytest

from runnel import catalog
from runnel.generation import generate
from tests.decoding.support import (
    CASES,
    HYBRIDS,
    PATTERNS,
    RAGGED,
    SPINE,
    Branching,
    assert_same_state,
    sharp,
    stepped,
)

RULES = [name for name in catalog.names("acceptance") if catalog.page("acceptance", name).LOSSLESS]


def test_every_drafter_has_its_case():
    assert set(CASES) == set(catalog.names("drafters"))


def place(pattern, rule):
    quick = rule == "match" or pattern in (*SPINE, *HYBRIDS)
    return pytest.param(pattern, rule, marks=() if quick else pytest.mark.thorough)


@pytest.mark.parametrize(("pattern", "rule"), [place(pattern, rule) for pattern in PATTERNS for rule in RULES])
def test_greedy_is_the_same_with_every_drafter_and_rule(pattern, rule):
    model = sharp(pattern)
    plain = [stepped(model, prompt, 8) for prompt in RAGGED]
    for drafter in [*[make(model) for make in CASES.values()], Branching(None)]:
        options = {"max_new_tokens": 8, "decoder": "greedy", "drafter": drafter, "acceptance": rule}
        together = generate(model, RAGGED, prefill_chunk=4, **options)
        assert together.tokens == [tokens for tokens, _ in plain], drafter
        assert generate(model, RAGGED[2:], **options).tokens == together.tokens[2:], drafter
        for row, (_, state) in enumerate(plain):
            assert_same_state(together.state, row, state)
