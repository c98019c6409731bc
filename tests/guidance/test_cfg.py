import math

import pytest
import torch

import runnel
from runnel.guidance import cfg

from .support import OTHERS, RAGGED, conflicts, faithful, model_of_facts, sharp


def test_it_is_the_formula():
    given, other = torch.randn(2, 6, 7, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    for scale in (0.0, 0.5, 1.0, 3.0, -1.0):
        config = cfg.Config(scale)
        found = cfg.Cfg(config).combine([given, other]).softmax(-1)
        for row in range(6):
            laws = given[row].softmax(-1).tolist(), other[row].softmax(-1).tolist()
            assert found[row].tolist() == pytest.approx(cfg.reference(*laws, config), abs=1e-12)


@pytest.mark.parametrize("pattern", ["attention", "mamba2, attention(window=5)"])
def test_a_scale_of_one_is_plain_decoding_and_of_zero_the_other_prompt(pattern):
    model, options = sharp(pattern), {"seed": [3, 5, 8], "temperature": 1.3}
    plain = runnel.generate(model, RAGGED, 12, **options)
    one = runnel.generate(model, RAGGED, 12, guidance=cfg.Config(1.0, OTHERS), **options)
    assert one.tokens == plain.tokens and one.logprobs == plain.logprobs  # to the bit
    none = runnel.generate(model, RAGGED, 12, decoder="greedy", guidance=cfg.Config(0.0, OTHERS))
    assert none.tokens == runnel.generate(model, OTHERS, 12, decoder="greedy").tokens


def test_without_a_prompt_the_other_stream_reads_the_newest_token_alone():
    model = sharp()
    default = runnel.generate(model, RAGGED, 12, guidance=cfg.Config(2.0))
    given = runnel.generate(model, RAGGED, 12, guidance=cfg.Config(2.0, [text[-1:] for text in RAGGED]))
    assert default.tokens == given.tokens != runnel.generate(model, RAGGED, 12).tokens


def test_more_guidance_stays_closer_to_the_prompt():
    """A fact that the model knows against a context that says otherwise, the question alone as the negative prompt."""
    _, questions, _ = conflicts()
    shares = [faithful(model_of_facts(), cfg.Config(scale, questions)) for scale in (0.0, 1.0, 1.5, 3.0)]
    assert shares == sorted(shares) and shares[0] < 0.1 and 0.2 < shares[1] < 0.5 and shares[-1] > 0.9, shares


def test_what_cannot_be_meant_is_refused():
    with pytest.raises(ValueError, match="scale of cfg must be a finite number; got inf"):
        cfg.Config(math.inf)
