import random

import pytest

from runnel.drafters import adaptive
from runnel.drafters.adaptive import Adaptive, Config
from runnel.generation import generate
from tests.decoding.support import sharp


def paths_of(draft):
    found = []
    for node, parent in enumerate(draft.parents):
        assert -1 <= parent < node
        found.append((*(found[parent] if parent >= 0 else ()), draft.tokens[node]))
    return found


@pytest.mark.parametrize("config", [Config(), Config(nodes=6, explore=0.0), Config(nodes=30, explore=5.0, width=2)])
def test_the_tree_is_that_of_the_definition(config):
    rng, drafter, nodes = random.Random(0), Adaptive(config), 0
    for _ in range(10):
        text = [rng.randrange(4)]
        memory = drafter.begin(text, draw=None)
        for _ in range(12):
            new = [rng.randrange(4) for _ in range(rng.randrange(1, 4))]
            text += new
            drafter.advance(memory, new)
            budget = rng.randrange(1, 6)
            draft = drafter.propose(memory, budget)
            assert paths_of(draft) == adaptive.reference(text, config, budget)
            nodes += len(draft.tokens)
    assert nodes > 300


def test_exploring_widens_the_tree():
    text = [0, 1, 0, 1, 0, 1, 0, 2, 0, 1, 0]
    drafted = {}
    for explore in (0.0, 1.25, 50.0):
        drafter = Adaptive(Config(nodes=6, explore=explore))
        drafted[explore] = paths_of(drafter.propose(drafter.begin(text, draw=None), 9))
    assert drafted[0.0] == [(1, 0, 1, 0, 1, 0)[:depth] for depth in range(1, 7)]
    first = {explore: {path[0] for path in paths} for explore, paths in drafted.items()}
    assert first[0.0] == {1} and first[1.25] == first[50.0] == {1, 2}
    assert max(map(len, drafted[50.0])) < max(map(len, drafted[1.25])) < 6


class Frozen(Adaptive):
    """The counts of the prompt."""

    def advance(self, memory, tokens):
        for token in tokens:
            memory.move(token)

    def begin(self, prompt, draw):
        return Adaptive(self.config).begin(prompt, draw)


@pytest.mark.parametrize("pattern", ["mingru", "mamba2, attention(window=5)"])
def test_acceptance_rises_over_a_long_text_and_that_of_a_frozen_table_does_not(pattern):
    model, prompts, length = sharp(pattern, vocab_size=16, scale=12.0), [list(range(16))] * 4, 240
    plain, gains = generate(model, prompts, length).tokens, {}
    for drafter in (Adaptive(Config()), Frozen(Config())):
        rounds, written = [[], [], []], [0] * len(prompts)

        def count(row, tokens, written=written, rounds=rounds):
            rounds[written[row] * 3 // length].append(len(tokens))
            written[row] += len(tokens)

        assert generate(model, prompts, length, drafter=drafter, on_tokens=count).tokens == plain
        early, _, late = [sum(part) / len(part) for part in rounds]
        gains[type(drafter)] = late - early
    assert gains[Adaptive] > 0.15
    assert gains[Frozen] < 0.05


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"nodes": 0}, "nodes must be at least 1; got 0"),
        ({"width": 0}, "width must be at least 1; got 0"),
        ({"explore": -1.0}, "explore must be at least 0; got -1.0"),
    ],
)
def test_impossible_options_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        Config(**options)
