from collections import Counter

import pytest
import torch

from runnel.decoders import sample
from runnel.ops.sampling import gumbel, tempered

CONFIGS = [
    sample.Config(),
    sample.Config(temperature=0.3),
    sample.Config(top_k=3),
    sample.Config(top_k=100),
    sample.Config(top_p=0.7),
    sample.Config(top_p=1e-9),
    sample.Config(top_p=1.0),
    sample.Config(min_p=0.2),
    sample.Config(min_p=0.0),
    sample.Config(min_p=1.0),
    sample.Config(temperature=1.7, top_k=6, top_p=0.8, min_p=0.3),
]


def law_of(config, logits):
    return tempered(logits, config.temperature, config.top_k, config.top_p, config.min_p)


def logits_of(rows, outcomes=8, seed=0):
    return 2 * torch.randn(rows, outcomes, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("config", CONFIGS, ids=str)
def test_the_law_is_that_of_the_definitions(config):
    logits = logits_of(40)
    expected = torch.tensor([sample.reference(row, config) for row in logits.tolist()], dtype=torch.float64)
    torch.testing.assert_close(law_of(config, logits).softmax(-1), expected, rtol=0, atol=1e-12)


def test_truncations_remove_what_they_should():
    logits = logits_of(40)
    kept = [int(law_of(config, logits).isfinite().sum()) for config in CONFIGS]
    plain, cold, top_3, top_100, top_p, tiny_p, whole_p, min_p, no_min, full_min, all_three = kept
    assert plain == cold == top_100 == whole_p == no_min == 320
    assert tiny_p == full_min == 40
    assert top_3 == 120
    assert all(40 < count < 320 for count in (top_p, min_p, all_three))


def test_draws_follow_the_law():
    """Chi-square of 20,000 draws (truncated to 5 outcomes, 4 degrees of freedom: 13.28 at p = 0.01)."""
    config, draws = sample.Config(temperature=1.5, top_k=5), 20_000
    logits = logits_of(1)
    law = sample.reference(logits[0].tolist(), config)
    picked = sample.Sample(config).pick(logits.expand(draws, -1), [9] * draws, range(draws))
    counts = Counter(picked)
    assert set(counts) == {token for token, p in enumerate(law) if p > 0}
    assert sum((counts[t] - draws * law[t]) ** 2 / (draws * law[t]) for t in counts) < 13.28


def test_a_draw_depends_on_its_seed_and_position_only():
    decoder, logits = sample.Sample(sample.Config()), logits_of(60)
    seeds, positions = [row % 7 for row in range(60)], [row // 7 for row in range(60)]
    together = decoder.pick(logits, seeds, positions)
    alone = [decoder.pick(logits[i : i + 1], seeds[i : i + 1], positions[i : i + 1])[0] for i in range(60)]
    assert together == alone
    assert together != decoder.pick(logits, positions, seeds)


def test_noise_is_independent_between_seeds_positions_and_tokens():
    noise = gumbel([0, 1, 0, 1, 2**63 - 1], [0, 0, 1, 1, 2**63 - 1], 4000)
    assert noise.isfinite().all()
    assert noise.mean(1).sub(0.5772156649).abs().max() < 5 * 1.2825 / 4000**0.5  # mean and deviation of Gumbel(0)
    correlation = torch.corrcoef(torch.cat([noise, noise[:1].roll(1, dims=1)]))
    assert (correlation - torch.eye(6)).abs().max() < 5 / 4000**0.5


def test_noise_stays_what_it_is():
    """The text of a seed is a promise between versions: these numbers must never change."""
    expected = torch.tensor([[-0.14801852811660707, -0.6096014756588101, 1.4367097085970424]], dtype=torch.float64)
    torch.testing.assert_close(gumbel([7], [11], 3), expected, rtol=0, atol=1e-12)


def test_temperature_zero_is_greedy():
    logits = logits_of(30)
    assert sample.Sample(sample.Config(temperature=0)).pick(logits, [1] * 30, range(30)) == logits.argmax(-1).tolist()
