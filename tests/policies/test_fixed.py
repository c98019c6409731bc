import pytest

from runnel.generation import generate
from runnel.policies import fixed
from tests.decoding.support import RAGGED, sharp


def test_budgets_are_those_of_the_definition():
    for config in (fixed.Config(), fixed.Config(3), fixed.Config(0)):
        expected = [fixed.reference(room, config) for room in range(6)]
        assert fixed.Fixed(config).budgets(list(range(6)), list(range(6))) == expected


def test_nothing_drafted_is_plain_decoding():
    plain = generate(sharp(), RAGGED, 20, seed=1)
    none = generate(sharp(), RAGGED, 20, seed=1, drafter="suffix", length=fixed.Config(0))
    assert (none.tokens, none.stats["drafted"], none.stats["target_calls"]) == (plain.tokens, 0, 20)
    some = generate(sharp(), RAGGED, 20, seed=1, drafter="suffix", length=fixed.Config(2))
    assert some.tokens == plain.tokens
    assert 0 < some.stats["drafted"] <= 2 * 3 * some.stats["target_calls"]


def test_bad_lengths_are_refused():
    with pytest.raises(ValueError, match="max_draft must be at least 0; got -1"):
        fixed.Config(-1)
