import random

import pytest
import torch

from runnel.drafters import Draft, Seen, lookahead
from runnel.drafters.lookahead import Config, Lookahead
from tests.decoding.support import sharp


def paths_of(draft):
    found = []
    for node, parent in enumerate(draft.parents):
        assert -1 <= parent < node
        found.append([*(found[parent] if parent >= 0 else []), draft.tokens[node]])
    return found


@pytest.mark.parametrize("config", [Config(), Config(window=2, ngram=2, guesses=1), Config(window=4, ngram=3)])
def test_the_window_and_the_pool_are_those_of_the_definition(config):
    """Rounds against a model that is asked about every path alone."""
    model, rng, drafter, shared = sharp("mingru, attention", vocab_size=8), random.Random(0), Lookahead(config), 0

    @torch.no_grad()
    def after(path):
        return model(torch.tensor([[*text, *path]]))[0][0, -1]

    text = [1, 2, 3, 1, 2]
    memory = drafter.begin(text, draw=None)
    size = config.ngram
    pool = [tuple(text[at : at + size]) for at in range(len(text) - size + 1)]
    for _ in range(12):
        draft = drafter.propose(memory, budget=50)
        paths = paths_of(draft)
        of_newest = [list(ngram[1:]) for ngram in dict.fromkeys(reversed(pool)) if ngram[0] == text[-1]]
        columns = [memory.column(at) for at in range(config.window)]
        hung = [*of_newest[: config.guesses], *columns]
        wanted = {tuple(path[:end]) for path in hung for end in range(1, len(path) + 1)}
        assert {tuple(path) for path in paths} == wanted and len(paths) == len(wanted)
        shared += sum(map(len, hung)) > len(paths)

        logits = torch.stack([after(path) for path in [[], *paths]])
        levels, new = memory.levels, lookahead.reference(after, memory.levels)
        seen = Seen([text[-1], *draft.tokens], [-1, *[parent + 1 for parent in draft.parents]], [0], logits, logits)
        drafter.look_back(memory, seen)
        assert memory.levels == [*levels[1:], new]
        pool += [(*[level[at] for level in levels], new[at]) for at in range(config.window)]

        written = [rng.randrange(8) for _ in range(rng.randrange(1, 4))]
        for token in written:
            text.append(token)
            pool.append(tuple(text[-size:]))
        drafter.advance(memory, written)
    assert shared > 3


def test_guesses_come_first_and_share_their_beginnings():
    drafter = Lookahead(Config(window=1, ngram=3, guesses=2))
    memory = drafter.begin([5, 1, 2, 5, 1, 3, 5, 4, 4, 5], draw=None)
    assert drafter.propose(memory, 9).tokens[:4] == [4, 4, 1, 3]
    assert drafter.propose(memory, 1).tokens == [4, 1, 5]
    drafter.advance(memory, [1, 2, 5])
    draft = drafter.propose(memory, 9)
    assert (draft.tokens[:3], draft.parents[:3]) == ([1, 2, 4], [-1, 0, -1])


def test_a_tree_without_the_window_changes_nothing():
    drafter = Lookahead(Config())
    memory = drafter.begin([1, 2, 3], draw=None)
    levels = memory.levels
    drafter.look_back(memory, Seen([3, 7], [-1, 0], [0], torch.eye(2), torch.eye(2)))
    assert memory.levels is levels
    assert isinstance(drafter.propose(memory, 1), Draft)


@pytest.mark.parametrize(("option", "least"), [("window", 1), ("ngram", 2), ("guesses", 1)])
def test_impossible_options_are_refused(option, least):
    with pytest.raises(ValueError, match=f"{option} must be at least {least}; got {least - 1}"):
        Config(**{option: least - 1})
