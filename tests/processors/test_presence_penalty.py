import math

import pytest

from runnel.processors import presence_penalty

from .support import assert_is, assert_lossless, logits_of, texts_of, unchanged


@pytest.mark.parametrize("penalty", [0.7, -0.4, 30.0])
def test_it_is_the_definition(penalty):
    config, logits, texts = presence_penalty.Config(penalty), logits_of(60), texts_of(60)
    found = presence_penalty.PresencePenalty(config).process(logits, texts)
    rows = zip(logits.tolist(), texts, strict=True)
    assert_is(found, [presence_penalty.reference(row, text.written, config) for row, text in rows])


def test_a_penalty_of_zero_changes_nothing():
    assert unchanged(presence_penalty.PresencePenalty(presence_penalty.Config(0.0)))


def test_it_is_lossless():
    assert_lossless([presence_penalty.Config(1.5)])


@pytest.mark.parametrize("penalty", [math.inf, math.nan])
def test_what_cannot_be_meant_is_refused(penalty):
    with pytest.raises(ValueError, match="presence_penalty must be a finite number; got"):
        presence_penalty.Config(penalty)
