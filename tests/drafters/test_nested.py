import pytest
import torch

from runnel.decoders import sample
from runnel.drafters import nested
from runnel.generation import generate
from tests.decoding.support import RAGGED, sharp
from tests.trained.support import shaken

PATTERN = "mingru, attention(window=4), mamba2"


def make(threshold=0.7, exits=(1, 2, 3)):
    return shaken(nested.Nested(nested.Config(sharp(PATTERN), exits=exits, threshold=threshold, max_draft=4)))


class Row:
    """A row that is being written: `draw` follows it, and notes the laws that it was given."""

    def __init__(self, text, seed):
        self.text, self.seed, self.decoder, self.laws = list(text), seed, sample.Sample(sample.Config()), {}

    def __call__(self, logits, ahead, path):
        self.laws[tuple(path)] = logits
        return int(self.decoder.scores(logits[None], [self.seed], [len(self.text) + ahead])[0].argmax())


@torch.no_grad()
def test_each_law_is_that_of_the_first_sure_prefix_after_any_acceptance():
    drafter, rng = make(), torch.Generator().manual_seed(0)
    rows = [Row([1, 2, 3], 0), Row([4], 1), Row([2, 0] * 4, 2)]
    memories, depths = [drafter.begin(row.text, row) for row in rows], []
    for _ in range(8):
        for row in rows:
            row.laws = {}
        budgets = torch.randint(0, 6, (3,), generator=rng).tolist()
        drafts = drafter.propose_all(memories, budgets)
        for row, memory, budget, draft in zip(rows, memories, budgets, drafts, strict=True):
            assert len(draft.tokens) == len(row.laws) == min(budget, 4)
            for path, logits in row.laws.items():
                wanted, depth = nested.reference(drafter, [*row.text, *path])
                torch.testing.assert_close(logits, wanted, rtol=0, atol=1e-9)
                depths.append(depth)
            kept = int(torch.randint(0, len(draft.tokens) + 1, (), generator=rng))
            new = [*draft.tokens[:kept], int(torch.randint(0, 5, (), generator=rng))]
            row.text += new
            drafter.advance(memory, new)
    assert set(depths) == {1, 2, 3}


@pytest.mark.parametrize(("threshold", "asked"), [(0.0, 1), (1.0, 3)])
def test_degenerate_thresholds_are_the_shallowest_and_the_deepest(threshold, asked):
    drafter = make(threshold)
    calls = [0, 0, 0]
    for depth, stage in enumerate(drafter.parts):
        stage.register_forward_hook(lambda *_, depth=depth: calls.__setitem__(depth, calls[depth] + 1))
    generate(sharp(PATTERN), RAGGED, 6, "greedy", drafter)
    assert [depth for depth, count in enumerate(calls, start=1) if count] == list(range(1, asked + 1))


def test_one_drafter_serves_targets_of_other_sizes():
    drafter = make()
    for target in (sharp(PATTERN), sharp("gated_deltanet", seed=3)):
        plain = generate(target, RAGGED, 10, "greedy")
        assert generate(target, RAGGED, 10, "greedy", drafter).tokens == plain.tokens


def test_it_begins_as_its_target():
    drafter = nested.Nested(nested.Config(sharp(PATTERN), exits=(1, 3)))
    tokens = torch.tensor([[1, 2, 0, 4]])
    torch.testing.assert_close(drafter.exits(tokens)[1], sharp(PATTERN)(tokens)[0])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"exits": (2, 1)}, r"exits must be rising depths in \[1, 3\]"),
        ({"exits": ()}, r"exits must be rising depths in \[1, 3\]"),
        ({"exits": (1, 4)}, r"exits must be rising depths in \[1, 3\], the target's layers; got \[1, 4\]"),
        ({"threshold": 1.5}, r"threshold must lie in \[0, 1\]; got 1.5"),
        ({"max_draft": 0}, "max_draft must be at least 1; got 0"),
    ],
)
def test_impossible_options_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        nested.Config(sharp(PATTERN), **options)
