import pytest
import torch

import runnel
from runnel.decoders import beam, diverse_beam
from runnel.ops.measures import distinct
from runnel.search import Task
from tests.decoding.support import RAGGED, assert_same_state, sharp, stepped

TERMS = ("hamming", "cumulative", "ngram")


def law(model, prompt):
    return lambda text: model(torch.tensor([[*prompt, *text]]))[0][0, -1].detach().log_softmax(-1)


@pytest.mark.parametrize("pattern", ["rwkv7, slstm, mamba", "attention"])
def test_no_diversity_in_one_group_is_beam_search(pattern):
    model = sharp(pattern)
    for options in ({}, {"eos": 3, "n": 4}):
        expected = runnel.generate(model, RAGGED, 10, decoder=beam.Config(width=4, length_penalty=1.0), **options)
        config = diverse_beam.Config(width=4, groups=1, diversity=0.0, length_penalty=1.0)
        found = runnel.generate(model, RAGGED, 10, decoder=config, **options)
        assert (found.tokens, found.scores, found.ended) == (expected.tokens, expected.scores, expected.ended)
        assert found.stats["target_calls"] == expected.stats["target_calls"]


@pytest.mark.parametrize("term", TERMS)
def test_it_is_the_paper_s_algorithm(term):
    model = sharp(vocab_size=4, scale=6.0)
    config = diverse_beam.Config(width=6, groups=3, diversity=0.7, term=term)
    for prompt in ([1, 0], [2]):
        groups = diverse_beam.reference(law(model, prompt), Task(prompt, 0, 0, 6, frozenset()), config)
        expected = {tuple(text): score for group in reversed(groups) for text, score in group}
        found = runnel.generate(model, [prompt], 6, decoder=config, n=6)
        assert {tuple(text) for text in found.tokens} == set(expected)
        assert found.scores == sorted(found.scores, reverse=True)
        for text, score in zip(found.tokens, found.scores, strict=True):
            assert score == pytest.approx(max(s for group in groups for t, s in group if t == text), abs=1e-9)


@pytest.mark.parametrize("pattern", ["mamba2, attention(window=5)", "gla"])
def test_rows_of_a_batch_are_rows_alone(pattern):
    model = sharp(pattern)
    config = diverse_beam.Config(width=6, groups=3, diversity=2.0, term="ngram")
    found = runnel.generate(model, RAGGED, 9, decoder=config, eos=3, n=3, prefill_chunk=4)
    for row, prompt in enumerate(RAGGED):
        alone = runnel.generate(model, [prompt], 9, decoder=config, eos=3, n=3)
        assert alone.tokens == [text for at, text in zip(found.prompts, found.tokens, strict=True) if at == row]
    for at, (row, text) in enumerate(zip(found.prompts, found.tokens, strict=True)):
        tokens = iter(text)
        _, state = stepped(model, RAGGED[row], len(text), lambda logits, position, tokens=tokens: next(tokens))
        assert_same_state(found.state, at, state)


@pytest.mark.parametrize("term", TERMS)
def test_more_diversity_gives_more_distinct_ngrams(term):
    model = sharp("mingru, attention", vocab_size=12, scale=8.0)
    prompts = [[token] for token in range(12)]
    configs = [beam.Config(width=6)]
    configs += [diverse_beam.Config(width=6, groups=3, diversity=d, term=term) for d in (0.5, 2.0, 8.0)]
    measured = []
    for config in configs:
        found = runnel.generate(model, prompts, 10, decoder=config, n=6)
        texts = [[t for at, t in zip(found.prompts, found.tokens, strict=True) if at == row] for row in range(12)]
        measured.append(sum(distinct(own, 2) for own in texts) / 12)
    assert measured == sorted(measured)
    assert measured[-1] > measured[0] + 0.05


def test_the_best_text_is_that_of_a_group_or_better_and_may_escape_a_trap():
    """A beam as wide as all groups holds variations of one beginning; here it misses a likelier text for 10 of 144
    prompts, while for 43 the width is better spent on one beam.
    """
    model = sharp("mingru, attention", vocab_size=12, seed=2, scale=12.0)
    prompts = [[a, b] for a in range(12) for b in range(12)]
    group, whole, diverse = (
        best_totals(model, prompts, config)
        for config in (
            beam.Config(width=2),
            beam.Config(width=4),
            diverse_beam.Config(width=4, groups=2, diversity=1.0),
        )
    )
    assert bool((diverse >= group - 1e-9).all())
    assert int((diverse > whole + 1e-9).sum()) >= 5


def best_totals(model, prompts, config):
    """The log-probability of the likeliest text found for each prompt."""
    found = runnel.generate(model, prompts, 12, decoder=config, n=config.width)
    best = [-torch.inf] * len(prompts)
    for at, own in zip(found.prompts, found.logprobs, strict=True):
        best[at] = max(best[at], sum(own))
    return torch.tensor(best, dtype=torch.float64)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"width": 5}, "must be a multiple of its 2 groups; got 5"),
        ({"groups": 0}, "groups of diverse_beam must be at least 1; got 0"),
        ({"diversity": -1.0}, "diversity of diverse_beam must be a finite number >= 0; got -1.0"),
        ({"term": "neural"}, "must be hamming, cumulative or ngram; got 'neural'"),
        ({"falloff": 0.0}, "falloff of diverse_beam must be a finite number > 0; got 0.0"),
    ],
)
def test_what_cannot_be_meant_is_refused(options, message):
    with pytest.raises(ValueError, match=message):
        diverse_beam.Config(**options)
