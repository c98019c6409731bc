import math

import pytest

import runnel
from runnel.processors import logit_bias

from .support import assert_is, logits_of, sharp, texts_of, unchanged


def test_it_is_the_definition():
    config = logit_bias.Config({2: 1.5, 0: -math.inf, 7: -0.25})
    found = logit_bias.LogitBias(config).process(logits_of(20), texts_of(20))
    assert_is(found, [logit_bias.reference(row, config) for row in logits_of(20).tolist()])


@pytest.mark.parametrize("bias", [{}, {1: 0.0}])
def test_nothing_added_changes_nothing(bias):
    assert unchanged(logit_bias.LogitBias(logit_bias.Config(bias)))


def test_a_biased_token_is_the_only_one_or_none():
    model = sharp()
    only = runnel.generate(model, [[1]], 9, processors=[logit_bias.Config({3: 1e4})])
    assert only.tokens == [[3] * 9]
    none = runnel.generate(model, [[1]], 40, temperature=3.0, processors=[logit_bias.Config({3: -math.inf})])
    assert 3 not in none.tokens[0]


def test_when_nothing_is_left_it_is_said():
    everything = logit_bias.Config(dict.fromkeys(range(5), -math.inf))
    with pytest.raises(ValueError, match="no token is left to write: all are banned by logit_bias"):
        runnel.generate(sharp(), [[1]], processors=[everything])


@pytest.mark.parametrize("value", [math.inf, math.nan])
def test_what_cannot_be_meant_is_refused(value):
    with pytest.raises(ValueError, match="must be a finite number or -inf; got"):
        logit_bias.Config({1: value})
    with pytest.raises(ValueError, match=r"must name tokens in \[0, 5\); got 5"):
        runnel.generate(sharp(), [[1]], processors=[logit_bias.Config({5: 1.0})])
