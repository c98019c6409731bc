import pytest
import torch

from runnel.decoders import sample
from runnel.drafters import eagle
from tests.decoding.support import sharp
from tests.trained.support import shaken


class Row:
    """A row that is being written: `draw` follows it."""

    def __init__(self, text, seed):
        self.text, self.seed, self.decoder = list(text), seed, sample.Sample(sample.Config())

    def scores(self, logits, ahead, path):
        return self.decoder.scores(logits[None], [self.seed], [len(self.text) + ahead])[0]

    def __call__(self, logits, ahead, path):
        assert len(path) == ahead
        return int(self.scores(logits, ahead, path).argmax())


@torch.no_grad()
@pytest.mark.parametrize("sampled", [True, False])
@pytest.mark.parametrize("layer", ["attention", "mamba2"])
def test_each_draft_is_what_rereading_writes(sampled, layer):
    target = sharp()
    drafter = shaken(eagle.Eagle(eagle.Config(target, layer=layer, sampled=sampled, max_draft=5)))
    rows = [Row([1, 2, 3, 4, 4, 1], 0), Row([3, 0], 1)]
    memories = [drafter.begin(row.text, row) for row in rows]
    features = [target.features(torch.tensor([row.text[:-1]]))[0][0] for row in rows]
    for memory, known in zip(memories, features, strict=True):
        drafter.read(memory, known)
    drafts = drafter.propose_all(memories, [5, 3])
    for row, known, draft, count in zip(rows, features, drafts, (5, 3), strict=True):
        assert draft.tokens == eagle.reference(drafter, known, row.text[1:], row, count)
    for memory in memories:
        assert int(memory.read[0].lengths[memory.read[1]]) in (1, 5)  # the true pairs, and no guess


@torch.no_grad()
def test_a_sampled_feature_depends_on_the_token():
    drafter = shaken(eagle.Eagle(eagle.Config(sharp())))
    plain = eagle.Eagle(eagle.Config(sharp(), sampled=False))
    feature = torch.randn(1, 16, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    assert len(list(plain.parameters())) < len(list(drafter.parameters()))
    one, other = [drafter.fused(feature, torch.tensor([token])) for token in (1, 2)]
    assert not torch.allclose(one, other)
    y = drafter.layer(one[None])[0]
    guessed, following = drafter.parted(y)
    assert not torch.allclose(guessed, following)
    assert all(part is y for part in plain.parted(y))


def test_impossible_options_are_refused():
    with pytest.raises(ValueError, match="max_draft must be at least 1; got 0"):
        eagle.Config(sharp(), max_draft=0)
