import math

import pytest
import torch

import runnel
from runnel.ops.sampling import gumbel
from runnel.processors import Text, mirostat_v2

from .support import assert_is, assert_lossless, logits_of, sharp


@pytest.mark.parametrize("mu", [-1.0, 0.0, 1.0, 2.5, 6.0, 50.0])
def test_it_is_the_authors(mu):
    logits = logits_of(60)
    logits[:30, 5] = -math.inf
    found = mirostat_v2.MirostatV2(mirostat_v2.Config()).process(logits, [Text([1], memory={"mirostat_v2": mu})] * 60)
    assert_is(found, [mirostat_v2.reference(row, mu) for row in logits.tolist()])
    assert found.isfinite().any(-1).all()


def test_a_great_bound_changes_nothing():
    logits = logits_of(30)
    assert torch.equal(mirostat_v2.MirostatV2(mirostat_v2.Config(1e6)).process(logits, [Text([1])] * 30), logits)


def test_it_is_lossless():
    assert_lossless([mirostat_v2.Config(target=0.7, rate=0.5)])


def test_the_text_is_that_of_the_literal_loop():
    model, config, written, mu = sharp(), mirostat_v2.Config(target=0.7, rate=0.5), [], 1.4
    for position in range(1, 25):
        with torch.no_grad():
            logits = model(torch.tensor([[1, *written]]))[0][0, -1] / 1.5
        left = torch.tensor(mirostat_v2.reference(logits.tolist(), mu), dtype=torch.float64)
        token = int((left + gumbel([4], [position], 5)[0]).argmax())
        mu -= config.rate * (-float(logits.log_softmax(-1)[token]) / math.log(2) - config.target)
        written.append(token)
    found = runnel.generate(model, [[1]], 24, temperature=1.5, seed=4, processors=[config], drafter="suffix")
    assert found.tokens == [written]


def test_the_mean_surprise_comes_near_the_target():
    model = sharp("mingru", vocab_size=60)
    for target in (2.0, 2.7):
        options = {"temperature": 1.0, "processors": [mirostat_v2.Config(target, rate=0.2)]}
        bits = -torch.tensor(runnel.generate(model, [[1]], 300, **options).logprobs[0]) / math.log(2)
        assert abs(float(bits[50:].mean()) - target) < 0.3


@pytest.mark.parametrize("options", [{"target": -1.0}, {"rate": math.inf}])
def test_what_cannot_be_meant_is_refused(options):
    with pytest.raises(ValueError, match="of mirostat_v2 must be"):
        mirostat_v2.Config(**options)
