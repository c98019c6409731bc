import math
from itertools import pairwise

import pytest
import torch

import runnel
from runnel.decoders import superposed
from tests.decoding.support import RAGGED, assert_same_state, sharp, stepped

PATTERNS = ("rwkv7, slstm, mamba", "mamba2, attention(window=5)", "gla")
CORPUS = [[0, 1, 2, 3, 4, 0, 1, 2], [2, 3, 2, 3, 4]]


def certain(tokens, vocab_size=5):
    return torch.eye(vocab_size, dtype=torch.float64)[list(tokens)]


@pytest.mark.parametrize("pattern", PATTERNS)
def test_it_is_the_paper_s_loop_and_rows_are_rows_alone(pattern):
    model = sharp(pattern, scale=8.0)
    config = superposed.Config(width=3, candidates=4)
    found = runnel.generate(model, RAGGED, 8, decoder=config, n=3, prefill_chunk=4)
    for row, prompt in enumerate(RAGGED):
        expected = superposed.reference(
            lambda mixtures: model(mixtures[None])[0][0, -1].detach().log_softmax(-1), certain(prompt), 8, 3
        )
        assert found.tokens[3 * row : 3 * row + 3] == [text for text, _ in expected]
        assert found.scores[3 * row : 3 * row + 3] == pytest.approx([total for _, total in expected], abs=1e-9)


@pytest.mark.parametrize("pattern", PATTERNS)
def test_one_draft_is_greedy(pattern):
    model = sharp(pattern)
    greedy = runnel.generate(model, RAGGED, 12, decoder="greedy", eos=3)
    one = runnel.generate(model, RAGGED, 12, decoder=superposed.Config(width=1), eos=3)
    assert (one.tokens, one.ended) == (greedy.tokens, greedy.ended)
    for own, expected in zip(one.logprobs, greedy.logprobs, strict=True):
        assert own == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("pattern", PATTERNS[:2])
def test_a_step_is_one_call_and_the_drafts_are_read_once_in_the_end(pattern, monkeypatch):
    model, calls = sharp(pattern, scale=8.0), []
    run = type(model)._run
    monkeypatch.setattr(type(model), "_run", lambda *given: calls.append(given[1].shape) or run(*given))
    found = runnel.generate(model, [[1, 2, 3]], 9, decoder=superposed.Config(width=3), n=3)
    monkeypatch.undo()
    assert calls == [(1, 2), (1, 1), *[(1, 1, 5)] * 8, (3, 9)]  # prompt, its newest token, mixtures, the drafts
    assert found.stats["target_calls"] == 10
    assert len({tuple(text) for text in found.tokens}) == 3
    for at, text in enumerate(found.tokens):
        tokens = iter(text)
        _, state = stepped(model, [1, 2, 3], 9, lambda logits, position, tokens=tokens: next(tokens))
        assert_same_state(found.state, at, state)
        exact = runnel.score(model, [[1, 2, 3, *text]]).logprobs[0][2:]
        assert found.logprobs[at] == pytest.approx(exact, abs=1e-9)


def test_drafts_are_likelier_than_nucleus_samples_and_the_gap_is_known():
    """The mean log-probability of a draft's token under the exact model (-1.42), beside that of nucleus samples (-2.01)
    and what (3) makes of the drafts (-1.22): the approximation costs 0.20 nats a token here.
    """
    model = sharp("mingru, attention", vocab_size=12, scale=10.0)
    prompts = [[a, b] for a in range(12) for b in range(0, 12, 3)]
    found = runnel.generate(model, prompts, 8, decoder=superposed.Config(width=3), n=3)
    exact, claimed = [sum(own) / 8 for own in found.logprobs], [score / 8 for score in found.scores]
    nucleus = runnel.generate(model, prompts, 8, top_p=0.9, n=3)
    sampled = [sum(own) / 8 for own in nucleus.logprobs]

    def mean(values):
        return sum(values) / len(values)

    assert mean(sampled) + 0.5 < mean(exact) < mean(claimed) < mean(exact) + 0.25


def test_ngrams_by_the_definitions():
    config = superposed.Ngrams(CORPUS, weights=(0.3, 0.2), alpha=0.6)
    counts = superposed.Counts(config)
    law = torch.tensor([0.1, 0.2, 0.3, 0.15, 0.25], dtype=torch.float64).log()
    # after 3: 4, 2, 4; after 2, 3: 4, 2, 4
    share = [0.0, 0.0, (0.3 + 0.2) / 3, 0.0, (0.3 + 0.2) * 2 / 3]
    expected = [-math.inf if q == 0 else 0.4 * float(law[v]) + 0.6 * math.log(q) for v, q in enumerate(share)]
    assert counts.interpolated(law, [1, 2, 3]).tolist() == pytest.approx(expected)
    unseen = superposed.Counts(superposed.Ngrams([[0, 1]], alpha=0.5)).interpolated(law, [4])
    assert unseen.tolist() == pytest.approx((0.5 * law - 200).tolist())


def test_ngrams_keep_drafts_to_what_the_corpus_says():
    model = sharp("gla", scale=4.0)
    config = superposed.Config(width=2, candidates=5, ngrams=superposed.Ngrams(CORPUS, alpha=0.5))
    found = runnel.generate(model, [[0, 1]], 6, decoder=config, n=2).tokens
    pairs = {pair for text in CORPUS for pair in pairwise(text)}
    assert all(pair in pairs for text in found for pair in pairwise([1, *text]))
    plain = runnel.generate(model, [[0, 1]], 6, decoder=superposed.Config(width=2, candidates=5), n=2).tokens
    assert not all(pair in pairs for text in plain for pair in pairwise([1, *text]))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"width": 0}, "width of superposed must be at least 1; got 0"),
        ({"width": 4, "candidates": 3}, "candidates of superposed must be at least its width 4; got 3"),
    ],
)
def test_what_cannot_be_meant_is_refused(options, message):
    with pytest.raises(ValueError, match=message):
        superposed.Config(**options)
    with pytest.raises(ValueError, match=r"alpha of superposed must lie in \[0, 1\); got 1.0"):
        superposed.Ngrams([[1]], alpha=1.0)
    with pytest.raises(ValueError, match="n must be at most the width 3 of superposed; got 4"):
        runnel.generate(sharp(), RAGGED, 4, decoder="superposed", n=4)
    with pytest.raises(ValueError, match=r"corpus of superposed must hold tokens in \[0, 5\); got 5"):
        runnel.generate(sharp(), RAGGED, 4, decoder=superposed.Config(ngrams=superposed.Ngrams([[1, 5]])))
