import math

import pytest
import torch
from torch.nn.functional import cross_entropy

import runnel
from runnel.decoders import best_of, sample
from runnel.decoders.best_of import Backward, Forward, sample_seed
from tests.decoding.support import RAGGED, assert_same_state, law_of, sharp

HOT = sample.Config(temperature=1.2, top_k=4)


@pytest.mark.parametrize("pattern", ["rwkv7, slstm, mamba", "mamba2, attention(window=5)", "gla"])
def test_it_gives_the_best_of_what_the_decoder_writes(pattern):
    model = sharp(pattern, scale=8.0)
    for ranker in ("mean", "total"):
        config = best_of.Config(samples=5, decoder=HOT, ranker=ranker)
        found = runnel.generate(model, RAGGED, 9, decoder=config, seed=[3, 4, 5], eos=2, n=2, prefill_chunk=4)
        for row, prompt in enumerate(RAGGED):
            seeds = [sample_seed(3 + row, i) for i in range(5)]
            drawn = runnel.generate(model, [prompt] * 5, 9, decoder=HOT, seed=seeds, eos=2)
            length = [len(text) if ranker == "mean" else 1 for text in drawn.tokens]
            ranks = [sum(own) / by for own, by in zip(drawn.logprobs, length, strict=True)]
            best = best_of.reference(ranks)
            assert found.tokens[2 * row] == drawn.tokens[best]
            assert found.scores[2 * row : 2 * row + 2] == pytest.approx(sorted(ranks)[:-3:-1], abs=1e-9)
            assert_same_state(found.state, 2 * row, drawn.state.fork([best]))


def test_one_sample_is_the_decoder():
    model = sharp("gated_deltanet, mingru, attention")
    for decoder in ("greedy", HOT, "momentum", sample.Config(processors=["mirostat"])):
        plain = runnel.generate(model, RAGGED, 10, decoder=decoder, seed=7)
        found = runnel.generate(model, RAGGED, 10, decoder=best_of.Config(1, decoder), seed=7)
        assert found.tokens == plain.tokens
        assert found.stats["target_calls"] == plain.stats["target_calls"]


def test_rankers_are_what_the_models_say():
    model = sharp("gla", vocab_size=3, scale=6.0)
    answer = [2, 1]
    ranks = {
        (a, b): Backward(model, begin=0).rank([a, b], [answer], frozenset())[0] for a in range(3) for b in range(3)
    }
    law = law_of(model, [0, 1, 2], 2)
    assert {pair: pytest.approx(p, abs=1e-9) for pair, p in ranks.items()} == {
        (a, b): math.log(law[b, a]) for a, b in ranks
    }
    assert sum(map(math.exp, ranks.values())) == pytest.approx(1, abs=1e-9)
    ended = Backward(model, begin=0).rank([1, 2], [[2, 1, 0], answer], frozenset([0]))
    assert ended[0] == pytest.approx(ended[1], abs=1e-12)
    forward = Forward(model).rank([1, 2], [answer, [0]], frozenset())
    assert forward[0] == pytest.approx(math.log(law_of(model, [1, 2], 2)[2, 1]) / 2, abs=1e-9)
    assert forward[1] == pytest.approx(math.log(law_of(model, [1, 2], 1)[(0,)]), abs=1e-9)


QUESTIONS, BEGIN, EOS, GENERIC = range(2, 8), 0, 1, 8


def asked_and_answered(count, generator):
    """Rows (question, answer, end): half of the answers say the same to everything, half are one of three that fit."""
    question = torch.randint(2, 8, (count,), generator=generator)
    fitting = 9 + 3 * (question - 2) + torch.randint(0, 3, (count,), generator=generator)
    generic = torch.rand(count, generator=generator) < 0.5
    return torch.stack([question, fitting.masked_fill(generic, GENERIC), torch.full((count,), EOS)], dim=1)


def trained(rows):
    model = runnel.build("mingru", vocab_size=27, d_model=16, seed=0)
    optimizer = torch.optim.Adam(model.parameters(), lr=2e-2)
    for step in range(150):
        batch = rows[step % 8 * 64 : step % 8 * 64 + 64]
        loss = cross_entropy(model(batch[:, :-1])[0].flatten(0, 1), batch[:, 1:].flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return model


def test_asking_back_finds_answers_that_fit_where_the_model_s_own_perplexity_does_not():
    rows = asked_and_answered(512, torch.Generator().manual_seed(0))
    begin = torch.full((512, 1), BEGIN)
    forward, backward = trained(rows), trained(torch.cat([begin, rows[:, :2].flip(1)], dim=1))
    prompts = [[question] for question in QUESTIONS]

    def share(ranker):
        """How many of the answers given fit."""
        config = best_of.Config(samples=8, ranker=ranker)
        found = runnel.generate(forward, prompts * 5, 4, decoder=config, eos=EOS, seed=0).tokens
        return sum((text[0] - 9) // 3 + 2 == q for text, [q] in zip(found, prompts * 5, strict=True)) / len(found)

    assert share("mean") < 0.2
    assert share(Backward(backward, BEGIN)) > 0.8


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"samples": 0}, "samples of best_of must be at least 1; got 0"),
        ({"ranker": "best"}, "ranker of best_of must be mean, total or a Ranker; got 'best'"),
    ],
)
def test_what_cannot_be_meant_is_refused(options, message):
    with pytest.raises(ValueError, match=message):
        best_of.Config(**options)
    with pytest.raises(ValueError, match="n must be at most the 8 samples of best_of; got 9"):
        runnel.generate(sharp(), RAGGED, 4, decoder="best_of", n=9)
    with pytest.raises(ValueError, match="decoder of best_of must draw tokens; got beam, a search"):
        runnel.generate(sharp(), RAGGED, 4, decoder=best_of.Config(decoder="beam"))
