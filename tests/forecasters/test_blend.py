import pytest
import torch
from forecasters.support import mean_error, parts, seasonal

from runnel.forecasters import dlinear, last_value, ridge, seasonal_naive
from runnel.forecasters.blend import Config, Member, reference
from runnel.windows import FitConfig, WindowShape, build
from runnel.windows.stacking import chosen_pull, simplex


@pytest.mark.parametrize(("a", "b", "c"), [(2.0, 0.5, 1.0), (1.0, 0.9, 3.0), (1.0, -0.4, 1.0)])
def test_two_weights_equal_the_closed_form(a, b, c):
    gram = torch.tensor([[a, b], [b, c]], dtype=torch.float64)
    assert float(simplex(gram)[0]) == pytest.approx(reference(gram), abs=1e-6)


def test_many_weights_are_no_worse_than_any_on_a_grid():
    errors = torch.randn(3, 50, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    gram = errors @ errors.T
    best = simplex(gram)
    assert float(best.sum()) == pytest.approx(1) and (best >= 0).all()
    steps = torch.linspace(0, 1, 21, dtype=torch.float64)
    grid = [torch.stack([x, y, 1 - x - y]) for x in steps for y in steps if x + y <= 1]
    assert all(best @ gram @ best <= w @ gram @ w + 1e-9 for w in grid)


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


def test_folds_are_apart_from_what_their_members_are_fitted_on():
    train, _ = parts(seasonal(), WindowShape(48, 6, channels=2))
    early, late = train.between(0, 2 / 3), train.between(2 / 3, 5 / 6)
    assert int(early.first.min()) == 48 and int(early.first.max()) + 6 == int(late.first.min()) == 300 * 2 // 3
    assert int(late.first.max()) + 6 == 300 * 5 // 6


def test_the_pull_is_chosen_on_folds_that_had_no_part():
    one = torch.tensor([[1.0, 0.0], [0.0, 2.0]], dtype=torch.float64)
    two = torch.tensor([[2.0, 0.0], [0.0, 1.0]], dtype=torch.float64)
    assert chosen_pull([one, two], (0.0, 1e6)) == 1e6, "what one fold teaches misleads on the other"
    assert chosen_pull([one, one], (0.0, 1e6)) == 0.0 and chosen_pull([one], (0.0, 1.0)) == 1.0


def test_refusals():
    with pytest.raises(ValueError, match="history of a blend must be that of its longest member, 48; got 24"):
        build(Config(members()), WindowShape(24, 6))
    with pytest.raises(ValueError, match="blend needs members"):
        Config(())
    with pytest.raises(ValueError, match="cuts of blend must rise"):
        Config(members(), cuts=(0.6, 0.5))
