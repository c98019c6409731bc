import pytest
import torch

import runnel
from runnel.objectives import auto_correct, next_token
from runnel.types import IGNORE, Batch
from tests.decoding.support import sharp


def rows(count=3, length=12, segments=None):
    tokens = torch.randint(0, 4, (count, length + 1), generator=torch.Generator().manual_seed(0))
    return Batch(tokens[:, :-1], tokens[:, 1:], segments)


def test_a_group_of_masks_is_hidden_and_nothing_is_learnt_behind_it():
    batch = rows()
    masked = auto_correct.hidden(batch, torch.tensor([3, 10, 12]), mask=4)
    for row, place in enumerate([3, 10, 12]):
        for column in range(12):
            group, behind = place <= column < place + 4, column >= place + 4
            assert int(masked.inputs[row, column]) == (4 if group else int(batch.inputs[row, column]))
            assert int(masked.targets[row, column]) == (IGNORE if behind else int(batch.targets[row, column]))


def test_masks_end_with_the_document():
    segments = torch.tensor([[0] * 6 + [1] * 6])
    masked = auto_correct.hidden(rows(1, segments=segments), torch.tensor([4]), mask=4)
    assert (masked.inputs == 4)[0].nonzero()[:, 0].tolist() == [4, 5]
    assert masked.n_targets == 12
    masked = auto_correct.hidden(rows(1, segments=segments), torch.tensor([0]), mask=4)
    assert (masked.targets == IGNORE)[0].nonzero()[:, 0].tolist() == [4, 5]


@torch.no_grad()
def test_the_loss_is_the_definition():
    model, batch, total = sharp(scale=3.0), rows(5), []
    torch.manual_seed(3)
    found = auto_correct.loss(model, batch)
    torch.manual_seed(3)
    places = torch.randint(1, 12, (5,))
    places[torch.rand(5) < auto_correct.PLAIN] = 12
    for row, place in enumerate(places.tolist()):
        text = [*batch.inputs[row].tolist(), int(batch.targets[row, -1])]
        for t in range(1, min(place + auto_correct.MASKS, 12) + 1):  # y_t after what stands before it
            context = [*text[: min(t, place)], *[4] * (t - place)]
            law = model(torch.tensor([context]))[0][0, -1].log_softmax(-1)
            total.append(-float(law[text[t]]))
    assert places.min() < 12 <= places.max()
    assert float(found) == pytest.approx(sum(total) / len(total), abs=1e-9)


def test_rows_left_as_they_are_give_the_next_token_loss():
    model, batch = sharp(scale=3.0), rows()
    plain = auto_correct.hidden(batch, torch.tensor([12, 12, 12]), mask=4)
    torch.testing.assert_close(next_token.loss(model, plain), next_token.loss(model, batch))


def test_values_have_no_mask():
    model = runnel.build("mingru", value_dim=1, d_model=8)
    with pytest.raises(ValueError, match="auto_correct trains a model of tokens"):
        auto_correct.loss(model, Batch(torch.zeros(1, 4, 1), torch.zeros(1, 4, 1)))
