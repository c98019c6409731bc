import pytest
import torch
from forecasters.support import mean_error, parts, seasonal

from runnel.forecasters import dlinear, last_value, ridge, seasonal_naive
from runnel.forecasters.blend import Config, Member
from runnel.windows import FitConfig, WindowShape, build
from runnel.windows.stacking import reference, trimmed


def grams(folds=4, count=6, seed=0):
    """Products of errors of members that are worse and worse, and go together more or less."""
    generator = torch.Generator().manual_seed(seed)
    made = []
    for _ in range(folds):
        errors = torch.randn(count, 50, generator=generator, dtype=torch.float64)
        errors = (errors + torch.randn(50, generator=generator, dtype=torch.float64)) * torch.linspace(1, 2, count)[
            :, None
        ]
        made.append(errors @ errors.T)
    return made


@pytest.mark.parametrize("seed", range(5))
def test_weights_equal_the_sums(seed):
    made = grams(seed=seed)
    expected = reference([gram.tolist() for gram in made])
    assert trimmed(made).tolist() == pytest.approx(expected, abs=1e-12)


def test_as_many_as_do_well_together_on_folds_that_had_no_part():
    alike = torch.full((3, 3), 1.0, dtype=torch.float64) + torch.diag(
        torch.tensor([0.0, 0.1, 0.2], dtype=torch.float64)
    )
    assert trimmed([alike, alike]).tolist() == [1, 0, 0], "nothing is won by the others"
    apart = torch.diag(torch.tensor([1.0, 1.1, 40.0], dtype=torch.float64))
    assert trimmed([apart, apart]).tolist() == [0.5, 0.5, 0], (
        "errors that have nothing to do with each other cancel out"
    )
    assert trimmed([apart]).tolist() == pytest.approx([1 / 3] * 3), "a single fold leaves nothing to choose by"


def members():
    return (
        Member("last", last_value.Config(), 12),
        Member("naive", seasonal_naive.Config(12), 12),
        Member("mean", seasonal_naive.Config(12, 4), 48),
        Member("ridge", ridge.Config(penalties=(10.0,)), 24),
        Member("dlinear", dlinear.Config(), 24, FitConfig(steps=30, lr=1e-2, valid_every=10)),
    )


def test_is_no_worse_on_its_folds_than_its_best_member_and_saves_as_tensors():
    shape = WindowShape(48, 6, channels=2)
    train, valid = parts(seasonal(noise=0.3), shape)
    model = build(Config(members(), every=1), shape)
    report = model.fit(train, valid)
    assert report.valid_loss == pytest.approx(mean_error(model, valid), rel=1e-4)
    for number, member in enumerate(model.members):
        assert model.scores[number][-1] == pytest.approx(mean_error(member, valid.seen_by(member.shape)), rel=1e-4)
    assert report.valid_loss < min(scores[-1] for scores in model.scores) * 1.1
    assert float(model.weights[0]) < 0.25 and float(model.weights.sum()) == pytest.approx(1)
    again = build(Config(members(), every=1), shape)
    again.load_state_dict(model.state_dict())
    assert mean_error(again, valid) == mean_error(model, valid)


def test_folds_begin_as_long_after_what_members_were_fitted_on_as_validation_is():
    shape = WindowShape(48, 6, channels=2)
    train, valid = parts(seasonal(), shape)  # 300 and 100 rows
    *folds, last = build(Config(members()), shape).folds(train, valid)
    assert last == (train, valid, valid) and len(folds) == 3
    for (learn, stop, judge), cut in zip(folds, (150, 200, 250), strict=True):
        assert int(learn.first.min()) == 48 and int(learn.first.max()) + 6 == int(stop.first.min()) == cut
        assert int(stop.first.max()) + 6 == int(judge.first.min()) == cut + 100
        assert int(judge.first.max()) + 6 == 400


def test_refusals():
    with pytest.raises(ValueError, match="history of a blend must be that of its longest member, 48; got 24"):
        build(Config(members()), WindowShape(24, 6))
    with pytest.raises(ValueError, match="blend needs members"):
        Config(())
    with pytest.raises(ValueError, match="cuts of blend must rise"):
        Config(members(), cuts=(0.6, 0.5))
