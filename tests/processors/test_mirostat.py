import math

import pytest
import torch

import runnel
from runnel.processors import Text, mirostat

from .support import assert_is, assert_lossless, logits_of, sharp


@pytest.mark.parametrize("mu", [0.0, 1.0, 2.5, 6.0, 50.0])
def test_it_is_the_papers(mu):
    config, logits = mirostat.Config(fitted=5), logits_of(60, outcomes=30)
    logits[:30, 5] = -math.inf
    found = mirostat.Mirostat(config).process(logits, [Text([1], memory={"mirostat": mu})] * 60)
    expected, counts = zip(*[mirostat.reference(row, mu, config) for row in logits.tolist()], strict=True)
    assert_is(found, list(expected))
    assert mu != 6.0 or len(set(counts)) > 3


def test_flat_laws_and_single_tokens_are_limits():
    logits = torch.zeros(3, 4, dtype=torch.float64)
    logits[2, :3] = -math.inf
    texts = [Text([1], memory={"mirostat": mu}) for mu in (0.0, 9.0, 0.0)]
    found = mirostat.Mirostat(mirostat.Config()).process(logits, texts)
    assert found.isfinite().any(-1).all()
    assert torch.equal(found[2], logits[2])
    law = -torch.arange(1, 9, dtype=torch.float64).log()[None]  # Zipf's own, s = 1: k = 2^mu / ln N
    found = mirostat.Mirostat(mirostat.Config()).process(law, [Text([1], memory={"mirostat": 3.0})])
    assert int(found.isfinite().sum()) == round(8 / math.log(8))


def test_its_memory_follows_the_written_text():
    processor, logits = mirostat.Mirostat(mirostat.Config(target=1.0, rate=0.5)), logits_of(1)[0]
    surprise = -float(logits.log_softmax(-1)[2]) / math.log(2)
    first = processor.note(Text([1]), logits, 2)
    assert math.isclose(first, 2.0 - 0.5 * (surprise - 1.0))
    assert math.isclose(processor.note(Text([1], memory={"mirostat": first}), logits, 2), first - 0.5 * (surprise - 1))


def test_it_is_lossless():
    assert_lossless([mirostat.Config(target=0.7, rate=0.5)])


def test_the_mean_surprise_comes_near_the_target():
    model = sharp("mingru", vocab_size=60)
    for target in (2.0, 2.7):
        options = {"temperature": 1.0, "processors": [mirostat.Config(target, rate=0.2)]}
        bits = -torch.tensor(runnel.generate(model, [[1]], 300, **options).logprobs[0]) / math.log(2)
        assert abs(float(bits[50:].mean()) - target) < 0.3


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"top_k": 3, "min_p": 0.1}, "mirostat truncates the law by itself; got top_k, min_p beside it"),
        ({"processors": ["mirostat", "eta"]}, "mirostat truncates the law by itself; got eta beside it"),
        ({"temperature": 0.0}, "mirostat steers what is drawn and needs a temperature above 0; got 0"),
    ],
)
def test_contradictions_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        runnel.generate(sharp(), [[1]], **{"processors": ["mirostat"], **options})


@pytest.mark.parametrize("options", [{"target": -1.0}, {"rate": math.nan}, {"fitted": 1}])
def test_what_cannot_be_meant_is_refused(options):
    with pytest.raises(ValueError, match="of mirostat must be"):
        mirostat.Config(**options)
