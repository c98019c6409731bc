import pytest
import torch

import runnel
from runnel.guidance import cfg, context_aware

from .support import OTHERS, RAGGED, conflicts, faithful, model_of_facts, sharp


def test_it_is_the_formula():
    given, other = torch.randn(2, 6, 7, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    for alpha in (0.0, 0.5, 2.0):
        config = context_aware.Config([], alpha)
        found = context_aware.ContextAware(config).combine([given, other]).softmax(-1)
        for row in range(6):
            laws = given[row].softmax(-1).tolist(), other[row].softmax(-1).tolist()
            assert found[row].tolist() == pytest.approx(context_aware.reference(*laws, config), abs=1e-12)


@pytest.mark.parametrize("pattern", ["attention", "mamba2, attention(window=5)"])
def test_alpha_zero_is_plain_decoding_and_any_other_is_cfg(pattern):
    model, options = sharp(pattern), {"seed": [3, 5, 8], "temperature": 1.3}
    plain = runnel.generate(model, RAGGED, 12, **options)
    none = runnel.generate(model, RAGGED, 12, guidance=context_aware.Config(OTHERS, 0.0), **options)
    assert none.tokens == plain.tokens and none.logprobs == plain.logprobs  # to the bit
    half = runnel.generate(model, RAGGED, 12, guidance=context_aware.Config(OTHERS, 0.5), **options)
    assert half.tokens == runnel.generate(model, RAGGED, 12, guidance=cfg.Config(1.5, OTHERS), **options).tokens


def test_answers_follow_the_context_more_as_alpha_grows():
    """Memorised facts against contexts that contradict them: the model follows the context in a third of the cases."""
    _, questions, _ = conflicts()
    alphas = (0.0, 0.25, 0.5, 1.0, 2.0)
    shares = [faithful(model_of_facts(), context_aware.Config(questions, alpha)) for alpha in alphas]
    assert shares == sorted(shares) and 0.2 < shares[0] < 0.5 and shares[-1] > 0.9, shares
    plain, strong = (context_aware.Config(questions, alpha) for alpha in (0.0, 1.0))
    greedy = [faithful(model_of_facts(), guidance, decoder="greedy", n=1) for guidance in (plain, strong)]
    assert greedy[0] < 0.4 and greedy[1] > 0.9, greedy


def test_what_cannot_be_meant_is_refused():
    with pytest.raises(ValueError, match="alpha of context_aware must be a finite number >= 0; got -1"):
        context_aware.Config([], -1)
    with pytest.raises(ValueError, match="guidance 'context_aware' needs a prompts"):
        runnel.generate(sharp(), RAGGED, guidance="context_aware")
