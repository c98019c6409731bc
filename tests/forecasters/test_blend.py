import pytest
import torch
from forecasters.support import mean_error, parts, seasonal

from runnel.forecasters import dlinear, last_value, ridge, seasonal_naive
from runnel.forecasters.blend import Config, Member
from runnel.windows import FitConfig, WindowShape, build
from runnel.windows.stacking import best, reference, simplex, weights


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
def test_the_members_that_are_kept_are_those_of_the_sums(seed):
    made = grams(seed=seed)
    assert best(made).tolist() == reference([gram.tolist() for gram in made])


def test_as_many_as_do_well_together_on_folds_that_had_no_part():
    alike = torch.full((3, 3), 1.0, dtype=torch.float64) + torch.diag(torch.tensor([0, 0.1, 0.2], dtype=torch.float64))
    assert best([alike, alike]).tolist() == [0], "nothing is won by the others"
    apart = torch.diag(torch.tensor([1.0, 1.1, 40.0], dtype=torch.float64))
    assert best([apart, apart]).tolist() == [0, 1], "errors that have nothing to do with each other cancel out"
    assert best([apart]).tolist() == [0, 1, 2], "a single fold leaves nothing to choose by"


def test_weights_are_pulled_to_the_even_mean_of_those_that_are_kept():
    apart = torch.diag(torch.tensor([1.0, 2.0, 40.0], dtype=torch.float64))
    free, near, even = (weights([apart, apart], pull).tolist() for pull in (0.0, 1.0, 1e9))
    assert free == pytest.approx([2 / 3, 1 / 3, 0]) and even == pytest.approx([0.5, 0.5, 0])
    assert near == pytest.approx([11 / 18, 7 / 18, 0])  # (4/3 + 1) w_1 = (8/3 + 1) w_2


def test_many_weights_are_no_worse_than_any_on_a_grid():
    errors = torch.randn(3, 50, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    gram = errors @ errors.T
    found = simplex(gram)
    assert float(found.sum()) == pytest.approx(1) and (found >= 0).all()
    steps = torch.linspace(0, 1, 21, dtype=torch.float64)
    grid = [torch.stack([x, y, 1 - x - y]) for x in steps for y in steps if x + y <= 1]
    assert all(found @ gram @ found <= w @ gram @ w + 1e-9 for w in grid)


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
