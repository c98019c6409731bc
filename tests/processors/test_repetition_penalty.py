import math
from itertools import pairwise

import pytest

from runnel.processors import repetition_penalty

from .support import assert_is, assert_lossless, logits_of, texts_of, unchanged

CONFIGS = [
    repetition_penalty.Config(1.3),
    repetition_penalty.Config(0.5, last=3),
    repetition_penalty.Config(9.0, last=1),
    repetition_penalty.Config(2.0, last=1000),
]


@pytest.mark.parametrize("config", CONFIGS, ids=str)
def test_it_is_the_papers(config):
    logits, texts = logits_of(60), texts_of(60)
    found = repetition_penalty.RepetitionPenalty(config).process(logits, texts)
    rows = zip(logits.tolist(), texts, strict=True)
    assert_is(found, [repetition_penalty.reference(row, [*t.prompt, *t.written], config) for row, t in rows])


def test_a_penalty_of_one_changes_nothing():
    assert unchanged(repetition_penalty.RepetitionPenalty(repetition_penalty.Config(1.0)))


def test_it_is_lossless_and_repeats_less():
    def changes(tokens):
        return sum(a != b for a, b in pairwise(tokens))

    weak = assert_lossless([repetition_penalty.Config(1.3, last=4)])
    strong = assert_lossless([repetition_penalty.Config(4.0, last=4)])
    assert sum(map(changes, strong)) > sum(map(changes, weak))


@pytest.mark.parametrize("penalty", [0.0, -1.0, math.inf, math.nan])
def test_what_cannot_be_meant_is_refused(penalty):
    with pytest.raises(ValueError, match="repetition_penalty must be a finite number above 0; got"):
        repetition_penalty.Config(penalty)
    with pytest.raises(ValueError, match="last of a repetition_penalty must be at least 1; got 0"):
        repetition_penalty.Config(last=0)
