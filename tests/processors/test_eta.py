import math

import pytest

from runnel.processors import eta

from .support import assert_is, assert_lossless, logits_of, texts_of, unchanged


@pytest.mark.parametrize("epsilon", [0.0009, 0.05, 0.3, 0.999])
def test_it_is_the_papers(epsilon):
    config, logits = eta.Config(epsilon), logits_of(60)
    logits[:30, 5] = -math.inf
    found = eta.Eta(config).process(logits, texts_of(60))
    assert_is(found, [eta.reference(row, config) for row in logits.tolist()])
    assert found.isfinite().any(-1).all()


def test_epsilon_zero_changes_nothing():
    assert unchanged(eta.Eta(eta.Config(0.0)))


def test_it_is_lossless():
    assert_lossless([eta.Config(0.3)])


@pytest.mark.parametrize("epsilon", [-0.1, 1.0, math.nan])
def test_what_cannot_be_meant_is_refused(epsilon):
    with pytest.raises(ValueError, match=r"epsilon of eta must lie in \[0, 1\); got"):
        eta.Config(epsilon)
