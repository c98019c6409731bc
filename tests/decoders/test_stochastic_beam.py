from collections import Counter

import pytest
import torch

import runnel
from runnel.decoders import stochastic_beam
from runnel.decoders.stochastic_beam import conditioned
from runnel.search import Task
from tests.decoding.support import RAGGED, assert_same_state, chi_square, law_of, sharp, stepped


def law(model, prompt):
    return lambda text: model(torch.tensor([[*prompt, *text]]))[0][0, -1].detach().log_softmax(-1)


@pytest.mark.parametrize("eos", [None, 2])
def test_it_finds_the_texts_of_largest_perturbed_log_probability(eos):
    model = sharp(vocab_size=3, scale=8.0)
    stops = frozenset() if eos is None else frozenset([eos])
    for seed, prompt in enumerate([[1, 0], [2], [0, 0, 1]]):
        expected = stochastic_beam.reference(law(model, prompt), 3, Task(prompt, seed, len(prompt), 4, stops))
        for width in (1, 5, 81):
            config = stochastic_beam.Config(width=width)
            found = runnel.generate(model, [prompt], 4, decoder=config, eos=eos, n=width, seed=seed)
            count = min(width, len(expected))
            assert found.tokens == [text for text, _, _ in expected[:count]]
            assert found.scores == pytest.approx([score for _, _, score in expected[:count]], abs=1e-9)
            assert [sum(own) for own in found.logprobs] == pytest.approx([p for _, p, _ in expected[:count]], abs=1e-9)


def test_conditioning_keeps_every_quantile():
    """Of G_v ~ Gumbel(phi_v) given G_v <= Z, to the same quantile given G_v <= G: what makes eq. (2) right."""
    generator = torch.Generator().manual_seed(0)
    phi = torch.randn(4, 6, dtype=torch.float64, generator=generator)
    perturbed = phi + torch.randn(4, 6, dtype=torch.float64, generator=generator)
    reach = torch.tensor([0.3, -2.0, 3.0, 1.0], dtype=torch.float64)
    found = conditioned(perturbed, reach)

    def log_cdf(value):
        return -torch.exp(phi - value)

    before = log_cdf(perturbed) - log_cdf(perturbed.amax(-1, keepdim=True))
    after = log_cdf(found) - log_cdf(reach[:, None])
    torch.testing.assert_close(after, before, rtol=0, atol=1e-10)
    torch.testing.assert_close(found.amax(-1), reach, rtol=0, atol=1e-12)
    banned = conditioned(torch.tensor([[0.5, -torch.inf]], dtype=torch.float64), reach[:1])
    assert banned.tolist() == [[0.3, -torch.inf]]


def test_the_law_of_the_first_two_texts_is_that_of_draws_without_replacement():
    model, draws = sharp("mingru, attention", vocab_size=2, scale=8.0), 2000
    config = stochastic_beam.Config(width=2)
    found = runnel.generate(model, [[1, 0]] * draws, 2, decoder=config, seed=0, n=2)
    pairs = Counter((tuple(a), tuple(b)) for a, b in zip(found.tokens[::2], found.tokens[1::2], strict=True))
    p = law_of(model, [1, 0], 2)
    without = {(a, b): p[a] * p[b] / (1 - p[a]) for a in p for b in p if a != b}
    assert sum(without.values()) == pytest.approx(1, abs=1e-10)
    assert min(without.values()) * draws > 5
    assert chi_square(pairs, without) < 24.72  # 11 degrees of freedom, p = 0.01
    first = Counter(tuple(text) for text in found.tokens[::2])
    assert chi_square(first, p) < 11.34
    quantiles = (-torch.exp(-torch.tensor(found.scores[::2], dtype=torch.float64))).exp().sort().values  # of Gumbel(0)
    uniform = (torch.arange(draws) + 0.5) / draws
    assert float((quantiles - uniform).abs().max()) < 1.63 / draws**0.5  # Kolmogorov and Smirnov, p = 0.01


@pytest.mark.parametrize("pattern", ["rwkv7, slstm, mamba", "gated_deltanet, mingru, attention", "attention"])
def test_rows_of_a_batch_are_rows_alone_and_narrow_is_the_start_of_wide(pattern):
    model, config = sharp(pattern, scale=6.0), stochastic_beam.Config(width=5, temperature=1.3)
    found = runnel.generate(model, RAGGED, 8, decoder=config, eos=3, n=5, seed=[4, 5, 6], prefill_chunk=4)
    assert all(len({tuple(text) for text in found.tokens[i : i + 5]}) == 5 for i in (0, 5, 10))
    narrow = stochastic_beam.Config(width=2, temperature=1.3)
    for row, prompt in enumerate(RAGGED):
        alone = runnel.generate(model, [prompt], 8, decoder=narrow, eos=3, n=2, seed=4 + row)
        assert alone.tokens == found.tokens[5 * row : 5 * row + 2]
    for at, (row, text) in enumerate(zip(found.prompts, found.tokens, strict=True)):
        tokens = iter(text)
        _, state = stepped(model, RAGGED[row], len(text), lambda logits, position, tokens=tokens: next(tokens))
        assert_same_state(found.state, at, state)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"width": 0}, "width of stochastic_beam must be at least 1; got 0"),
        ({"temperature": 0.0}, "temperature of stochastic_beam must be a finite number > 0; got 0.0"),
    ],
)
def test_what_cannot_be_meant_is_refused(options, message):
    with pytest.raises(ValueError, match=message):
        stochastic_beam.Config(**options)
    with pytest.raises(ValueError, match="must be at most the 5 texts of 1 of the 5 tokens that there are; got 6"):
        runnel.generate(sharp(), RAGGED, 1, decoder=stochastic_beam.Config(width=6))
