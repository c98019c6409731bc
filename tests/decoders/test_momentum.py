import math

import pytest
import torch

import runnel
from runnel.decoders import momentum
from runnel.drafters import suffix
from runnel.ops.measures import ngrams, repetition
from runnel.processors import Text
from tests.decoding.support import CASES, RAGGED, assert_same_state, sharp, stepped

CONFIGS = [
    momentum.Config(),
    momentum.Config(top_k=3, alpha=0.05, resistance=(0.0, 1.0, 5.0)),
    momentum.Config(top_k=5, alpha=1.0, resistance=(0.0, 0.0, math.inf)),
    momentum.Config(top_k=2, alpha=1.0, resistance=(2.0,)),
]


@pytest.mark.parametrize("config", CONFIGS)
def test_it_is_the_walk_of_the_paper(config):
    decoder, generator = momentum.Momentum(config), torch.Generator().manual_seed(0)
    for length in range(1, 30):
        text = torch.randint(0, 4, (length,), generator=generator).tolist()
        logits = 2 * torch.randn(1, 7, dtype=torch.float64, generator=generator)
        seen = [Text(text[: length // 2 + 1], text[length // 2 + 1 :])]
        expected = momentum.reference(logits[0].softmax(-1).tolist(), text, config)
        assert decoder.pick(logits, [0], [length], seen) == [expected]
        assert decoder.law(logits, seen).exp()[0].nonzero()[:, 0].tolist() == [expected]


@pytest.mark.parametrize("pattern", ["rwkv7, slstm, mamba", "mamba2, attention(window=5)"])
def test_no_resistance_is_greedy(pattern):
    model = sharp(pattern)
    expected = runnel.generate(model, RAGGED, 15, decoder="greedy", eos=3)
    found = runnel.generate(model, RAGGED, 15, decoder=momentum.Config(alpha=0.0), eos=3)
    assert (found.tokens, found.ended) == (expected.tokens, expected.ended)


@pytest.mark.parametrize("drafter", [None, *CASES])
@pytest.mark.parametrize("pattern", ["gated_deltanet, mingru, attention", "gla"])
def test_every_drafter_leaves_the_text_and_the_state_as_they_are(pattern, drafter):
    model, config = sharp(pattern), momentum.Config(top_k=4, alpha=0.3)
    made = None if drafter is None else CASES[drafter](model)
    found = runnel.generate(model, RAGGED, 15, decoder=config, drafter=made, prefill_chunk=3)
    for row, prompt in enumerate(RAGGED):
        text = list(prompt)

        def pick(logits, position, text=text):
            text.append(momentum.reference(logits.softmax(-1).tolist(), text, config))
            return text[-1]

        expected, state = stepped(model, prompt, 15, pick)
        assert found.tokens[row] == expected
        assert_same_state(found.state, row, state)


def test_infinite_resistance_repeats_no_4_gram_while_there_are_alternatives():
    model = sharp("mingru, attention", vocab_size=12)
    prompts = [[token] for token in range(12)]
    greedy = runnel.generate(model, prompts, 120, decoder="greedy").tokens
    blocked = momentum.Config(top_k=12, resistance=(0.0, 0.0, 0.0, math.inf))
    free = runnel.generate(model, prompts, 120, decoder=blocked, drafter=suffix.Config()).tokens
    assert min(repetition(text, 4) for text in greedy) > 0.4
    for prompt, text in zip(prompts, free, strict=True):
        found = ngrams([*prompt, *text], 4)
        assert len(found) == len(set(found))


def test_where_everything_resists_the_likeliest_token_is_written():
    decoder = momentum.Momentum(momentum.Config(top_k=2, resistance=(math.inf,)))
    assert decoder.pick(torch.tensor([[0.0, 3.0, 2.0]], dtype=torch.float64), [0], [2], [Text([1, 2])]) == [1]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"top_k": 0}, "top_k of momentum must be at least 1; got 0"),
        ({"alpha": math.inf}, "alpha of momentum must be a finite number >= 0; got inf"),
        ({"resistance": ()}, r"resistance of momentum must be at least one number >= 0; got \(\)"),
        ({"resistance": (1.0, -1.0)}, "resistance of momentum must be at least one number >= 0"),
    ],
)
def test_what_cannot_be_meant_is_refused(options, message):
    with pytest.raises(ValueError, match=message):
        momentum.Config(**options)
