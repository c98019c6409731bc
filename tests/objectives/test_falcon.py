import pytest
import torch

from runnel.drafters import falcon as drafters
from runnel.objectives import falcon
from runnel.types import Batch
from tests.decoding.support import sharp
from tests.trained.support import shaken


def make(**options):
    return shaken(drafters.Falcon(drafters.Config(sharp(), **options)))


def rows(length=12, segments=None):
    tokens = torch.randint(0, 5, (2, length + 1), generator=torch.Generator().manual_seed(1))
    return Batch(tokens[:, :-1], tokens[:, 1:], segments)


@torch.no_grad()
@pytest.mark.parametrize("block", [1, 2, 3])
def test_it_is_regression_and_distillation_a_block_ahead(block):
    drafter, batch = make(block=block).eval(), rows()
    count = (12 - block) // block * block  # pairs whose feature a block on is known, whole blocks from the end
    first = 12 - block - count
    regression, soft, hard = [], [], []
    for row in batch.inputs:
        read = drafter.target.read(row[None])
        hidden, laws = read.hidden[0], read.logits[0]
        ahead, _ = drafter.foresee(hidden[None, first : first + count], row[None, first + 1 : first + count + 1])
        for place in range(count):
            off = (ahead[0, place] - hidden[first + place + block]).abs()
            regression.append(torch.where(off < 1, off**2 / 2, off - 0.5).mean())
            own, law = drafter.law(ahead[0, place]).log_softmax(-1), laws[first + place + block].softmax(-1)
            soft.append((law * (law.log() - own)).sum())
            hard.append(-own[law.argmax()])
    means = [sum(each) / len(each) for each in (regression, soft, hard)]
    wanted = means[0] + 0.1 * (0.9 * means[1] + 0.1 * means[2])
    torch.testing.assert_close(falcon.loss(drafter, batch), wanted)


@torch.no_grad()
def test_what_is_shown_is_the_answer_and_is_not_scored(monkeypatch):
    drafter, batch = make(), rows()
    features, tokens, nexts, answers, _, kept = falcon.windows(drafter, batch)
    torch.testing.assert_close(features[:, 2:], nexts[:, :-2])
    assert torch.equal(tokens[:, 2:], answers[:, :-2])
    shown = torch.zeros_like(kept)
    shown[:, ::2] = True
    monkeypatch.setattr(falcon, "glanced", lambda *_: shown)
    read = []
    drafter.recurrence.register_forward_pre_hook(lambda _, inputs: read.append(inputs[0]))
    falcon.loss(drafter.train(), batch)
    wanted = torch.where(shown[..., None], nexts, features)
    torch.testing.assert_close(read[-1][..., 16:], wanted)
    torch.testing.assert_close(read[-1][..., :16], drafter.embed(torch.where(shown, answers, tokens)))


def test_glances_are_fewer_where_less_is_wrong():
    drafter = make()
    features, tokens, _, _, laws, kept = falcon.windows(drafter, rows(64))
    torch.manual_seed(0)
    some = falcon.glanced(drafter, features, tokens, laws, kept)
    right = drafter.law(drafter.foresee(features, tokens)[0])
    assert 0 < int(some.sum()) < 0.5 * int(kept.sum())
    assert int(falcon.glanced(drafter, features, tokens, right, kept).sum()) == 0


@torch.no_grad()
def test_only_whole_documents_teach():
    drafter, segments = make(), (torch.arange(12) >= 5).long().expand(2, -1)
    kept = falcon.windows(drafter, rows(segments=segments))[-1]
    assert kept[0].tolist() == [True] * 3 + [False] * 2 + [True] * 5  # places i with i and i + 2 in one document
    with pytest.raises(ValueError, match="documents that are longer than a block"):
        falcon.loss(drafter, rows(segments=torch.arange(12).expand(2, -1)))
    with pytest.raises(ValueError, match="rows of at least 4 tokens; got 3"):
        falcon.loss(drafter, rows(3))
