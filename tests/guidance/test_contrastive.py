import pytest
import torch

import runnel
from runnel.guidance import contrastive

from .support import RAGGED, VOCAB, conflicts, faithful, model_of_facts, sharp


def test_it_is_the_formula():
    expert, amateur = 2 * torch.randn(2, 6, 7, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    model = sharp()
    for options in ((0.0, 1.0, 1.0), (0.1, 1.0, 0.5), (0.3, 0.4, 2.0), (1.0, 1.0, 1.0)):
        config = contrastive.Config(model, *options)
        found = contrastive.Contrastive(config).combine([expert, amateur]).softmax(-1)
        for row in range(6):
            laws = expert[row].softmax(-1).tolist(), amateur[row].softmax(-1).tolist()
            assert found[row].tolist() == pytest.approx(contrastive.reference(*laws, config), abs=1e-12)


@pytest.mark.parametrize("pattern", ["attention", "mamba2, attention(window=5)"])
def test_no_strength_is_plain_decoding_and_full_plausibility_is_greedy(pattern):
    model, amateur, options = sharp(pattern), sharp("mingru", seed=1), {"seed": [3, 5, 8], "temperature": 1.3}
    plain = runnel.generate(model, RAGGED, 12, **options)
    none = runnel.generate(model, RAGGED, 12, guidance=contrastive.Config(amateur, 0.0, 0.0), **options)
    assert none.tokens == plain.tokens and none.logprobs == plain.logprobs  # to the bit
    sure = runnel.generate(model, RAGGED, 12, guidance=contrastive.Config(amateur, 1.0), **options)
    assert sure.tokens == runnel.generate(model, RAGGED, 12, decoder="greedy").tokens


@torch.no_grad()
def test_only_what_the_expert_finds_plausible_is_written():
    model, amateur = sharp(scale=6.0), sharp("mingru", seed=1)
    found = runnel.generate(model, RAGGED, 30, temperature=5.0, guidance=contrastive.Config(amateur, 0.3))
    free = runnel.generate(model, RAGGED, 30, temperature=5.0, guidance=contrastive.Config(amateur, 0.0))
    least = []
    for generation in (found, free):
        ratios = []
        for prompt, tokens in zip(RAGGED, generation.tokens, strict=True):
            law = model(torch.tensor([[*prompt, *tokens]]))[0][0, len(prompt) - 1 : -1].softmax(-1)
            ratios += [float(p[token] / p.max()) for p, token in zip(law, tokens, strict=True)]
        least.append(min(ratios))
    assert least[0] >= 0.3 > least[1]


def test_what_only_the_expert_has_learnt_comes_out():
    """The amateur has seen no context. What the expert knows beyond it is that contexts are followed now and then."""
    expert, amateur = model_of_facts(), model_of_facts(contexts=False)
    plain, contrasted = (
        faithful(expert, guidance, decoder="greedy", n=1) for guidance in (None, contrastive.Config(amateur, 0.1))
    )
    assert plain < 0.4 and contrasted > 0.9, (plain, contrasted)
    prompts, _, said = conflicts()
    implausible = contrastive.Config(amateur, 0.95)  # where the context is no longer plausible, memory stays
    found = runnel.generate(expert, prompts, 1, decoder="greedy", guidance=implausible)
    assert sum(tokens[0] == value for tokens, value in zip(found.tokens, said, strict=True)) < 0.4 * len(said)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"plausibility": 1.5}, r"plausibility of contrastive must lie in \[0, 1\]; got 1.5"),
        ({"strength": -1.0}, "strength of contrastive must be a finite number >= 0; got -1.0"),
        ({"temperature": 0.0}, "temperature of contrastive must be a finite number > 0; got 0.0"),
    ],
)
def test_what_cannot_be_meant_is_refused(options, message):
    with pytest.raises(ValueError, match=message):
        contrastive.Config(sharp(), **options)
    with pytest.raises(ValueError, match=r"must know the same tokens; got vocab_size \[5, 7\]"):
        runnel.generate(sharp(vocab_size=VOCAB), RAGGED, guidance=contrastive.Config(sharp(vocab_size=7)))
