import math

import pytest
import torch

import runnel
from runnel.decoders import beam, self_evaluation
from runnel.search import Task
from tests.decoding.support import RAGGED, assert_same_state, law_of, sharp, stepped

QUESTION = self_evaluation.Question([1, 2], good=3, bad=0)
ALWAYS = {"ratio": 0.0}


def law(model, prompt):
    return lambda text: model(torch.tensor([[*prompt, *text]]))[0][0, -1].detach().log_softmax(-1)


@pytest.mark.parametrize("pattern", ["rwkv7, slstm, mamba", "gla"])
@pytest.mark.parametrize(
    "config",
    [
        self_evaluation.Config(horizon=3, ratio=0.2),
        self_evaluation.Config(candidates=5, horizon=2, alpha=1.0, ratio=1.0, entropy=0.5),
        self_evaluation.Config(candidates=2, horizon=3, ratio=0.1, question=QUESTION),
        self_evaluation.Config(candidates=4, horizon=0, alpha=0.9, question=QUESTION, **ALWAYS),
    ],
)
def test_it_is_every_speculation_from_scratch_and_rows_are_rows_alone(pattern, config):
    model = sharp(pattern, scale=8.0)
    found = runnel.generate(model, RAGGED, 5, decoder=config, eos=4, prefill_chunk=4)
    for row, prompt in enumerate(RAGGED):
        task = Task(prompt, 0, len(prompt), 5, frozenset([4]))
        expected = self_evaluation.reference(law(model, prompt), task, config)
        assert found.tokens[row] == expected
        tokens = iter(expected)
        _, state = stepped(model, prompt, len(expected), lambda logits, position, tokens=tokens: next(tokens))
        assert_same_state(found.state, row, state)


@pytest.mark.parametrize("pattern", ["mamba2, attention(window=5)", "attention"])
@pytest.mark.parametrize("never", [{"ratio": 1.0}, {"candidates": 1, **ALWAYS}, {"alpha": 0.0, **ALWAYS}])
def test_without_chaos_or_choice_it_is_greedy(pattern, never):
    model = sharp(pattern)
    greedy = runnel.generate(model, RAGGED, 10, decoder="greedy", eos=3)
    found = runnel.generate(model, RAGGED, 10, decoder=self_evaluation.Config(horizon=2, **never), eos=3)
    assert (found.tokens, found.ended) == (greedy.tokens, greedy.ended)
    assert found.scores == pytest.approx([sum(own) for own in found.logprobs])


def test_speculation_that_covers_everything_finds_the_likeliest_text():
    """Of two tokens: all first ones are tried, and the greedy second one is the best there is."""
    model = sharp(scale=6.0)
    config = self_evaluation.Config(candidates=5, horizon=1, alpha=1.0, **ALWAYS)
    prompts = [[a, b] for a in range(5) for b in range(5)]
    found = runnel.generate(model, prompts, 2, decoder=config).tokens
    best = [max((p, text) for text, p in law_of(model, prompt, 2).items())[1] for prompt in prompts]
    assert [tuple(text) for text in found] == best
    greedy = runnel.generate(model, prompts, 2, decoder="greedy").tokens
    assert sum(a != b for a, b in zip(found, greedy, strict=True)) >= 2


def test_likelier_texts_for_more_calls():
    """Cost and gain beside each other: longer speculation at chaotic places only, and beam search as the yardstick."""
    model = sharp(scale=6.0)
    prompts = [[a, b] for a in range(5) for b in range(5)]

    def measured(decoder):
        found = runnel.generate(model, prompts, 10, decoder=decoder)
        return sum(sum(own) for own in found.logprobs) / len(prompts), found.stats["target_calls"]

    greedy, plain_calls = measured("greedy")
    evaluated, calls = measured(self_evaluation.Config(candidates=3, horizon=9, alpha=1.0, ratio=0.5))
    best, _ = measured(beam.Config(width=16))
    assert greedy + 0.3 < evaluated < best
    assert calls > 3 * plain_calls


def test_calls_are_counted():
    model = sharp("gla", scale=6.0)
    never = self_evaluation.Config(ratio=1.0)
    assert runnel.generate(model, [[1]], 6, decoder=never).stats["target_calls"] == 7
    always = self_evaluation.Config(candidates=2, horizon=2, **ALWAYS)
    # a place: one call for its tries and one to read the first speculated token; no speculation beyond the last token
    assert runnel.generate(model, [[1]], 6, decoder=always).stats["target_calls"] == 7 + 4


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"candidates": 0}, "candidates of self_evaluation must be at least 1; got 0"),
        ({"ratio": math.nan}, "ratio of self_evaluation must be at least 0; got nan"),
        ({"alpha": 2.0}, r"alpha of self_evaluation must lie in \[0, 1\]; got 2.0"),
        ({"question": self_evaluation.Question([], 1, 2)}, "must have at least one token; got none"),
    ],
)
def test_what_cannot_be_meant_is_refused(options, message):
    with pytest.raises(ValueError, match=message):
        self_evaluation.Config(**options)
    with pytest.raises(ValueError, match="n must be at most the width 1 of self_evaluation; got 2"):
        runnel.generate(sharp(), RAGGED, 3, decoder="self_evaluation", n=2)
    strange = self_evaluation.Config(question=self_evaluation.Question([1], 2, 5))
    with pytest.raises(ValueError, match=r"needs tokens in \[0, 5\); got 5"):
        runnel.generate(sharp(), RAGGED, 3, decoder=strange)
