import math

import pytest
import torch
from forecasters.support import a_window, autoregression, mean_error, parts, seasonal

from runnel.forecasters.ar_net import Config, reference
from runnel.windows import FitConfig, Window, WindowShape, build

TRUE = (0.6, -0.3, 0.0, 0.4)


def least_squares(table, order):
    lags = table.values[:, 0].double().unfold(0, order + 1, 1)
    return torch.linalg.lstsq(lags[:, :-1], lags[:, -1:]).solution[:, 0].flip(0)


@pytest.mark.parametrize("history, order", [(9, 4), (5, None), (1, 1)])
def test_equals_the_loop(history, order):
    shape = WindowShape(history, 7, channels=2)
    model, window = build(Config(order), shape).double(), a_window(shape)
    torch.nn.init.normal_(model.coefficients)
    torch.nn.init.constant_(model.intercept, 0.3)
    for row in range(3):
        for channel in range(2):
            x = window.history[row, :, channel].tolist()
            expected = torch.tensor(reference(x, model.coefficients.tolist(), 0.3, 7), dtype=torch.float64)
            assert (model.point(window)[row, :, channel] - expected).abs().max() < 1e-9 * (1 + expected.abs().max())


def test_recovers_the_coefficients_of_least_squares():
    table, shape = autoregression(TRUE, rows=3000), WindowShape(12, 4)
    train, valid = parts(table, shape)
    model = build(Config(order=4), shape)
    model.fit(train, valid, FitConfig(steps=600, lr=2e-2, valid_every=100, weight_decay=0.0))
    cut = type(table)(table.values[:2250], torch.tensor([2250]))
    assert (model.coefficients.detach() - least_squares(cut, 4)).abs().max() < 1e-2
    assert (model.coefficients.detach() - torch.tensor(TRUE)).abs().max() < 0.06


def test_the_penalty_drives_idle_lags_to_zero():
    table, shape = autoregression((0.5, 0.0, 0.0, 0.0, 0.4), rows=2000), WindowShape(40, 1)
    train, valid = parts(table, shape)
    fitted = {}
    for share in (1.0, 0.05):
        model = build(Config(order=40, share=share), shape)
        model.fit(train, valid, FitConfig(steps=500, lr=1e-2, valid_every=100, weight_decay=0.0))
        fitted[share] = model.coefficients.detach()
    idle = [i for i in range(40) if i not in (0, 4)]
    assert fitted[0.05][idle].abs().mean() < 0.3 * fitted[1.0][idle].abs().mean()
    assert (fitted[0.05][[0, 4]] - torch.tensor([0.5, 0.4])).abs().max() < 0.1


def test_penalty_equals_its_formula():
    model = build(Config(share=0.5, strength=1.0), WindowShape(3, 2)).double()
    with torch.no_grad():
        model.coefficients.copy_(torch.tensor([0.5, 0.0, -1.0]))
    terms = [2 / (1 + math.exp(-3 * w ** (1 / 3))) - 1 for w in (0.5, 0.0, 1.0)]
    assert model.penalty().item() == pytest.approx(sum(terms) / 3, abs=2e-3)
    window = a_window(WindowShape(3, 2))
    plain = build(Config(), WindowShape(3, 2)).double()
    plain.load_state_dict(model.state_dict())
    config = FitConfig()
    extra = model.loss(window, config) - plain.loss(window, config)
    assert extra.item() == pytest.approx(model.penalty().item())


def test_rows_with_missing_lags_do_not_count():
    shape = WindowShape(4, 3)
    model, window = build(Config(order=2), shape).double(), a_window(shape)
    gappy = Window(window.history, window.target.clone())
    gappy.target[:, 0] = torch.nan
    alone = Window(window.history[:, :2], window.history[:, 2:])  # the two rows that are left
    assert torch.allclose(model.loss(gappy, FitConfig()), model.loss(alone, FitConfig()))


def test_learns_a_season():
    shape = WindowShape(24, 6, channels=2)
    train, valid = parts(seasonal(), shape)
    model = build("ar_net", shape)
    model.fit(train, valid, FitConfig(steps=300, lr=1e-2, valid_every=100))
    assert mean_error(model, valid) < 0.05 < mean_error(build("last_value", shape), valid)


def test_refuses_what_there_is_not():
    with pytest.raises(ValueError, match="order of ar_net must be at most the history, 4; got 5"):
        build(Config(order=5), WindowShape(4, 2))
    with pytest.raises(ValueError, match=r"share of ar_net must be in \(0, 1\]; got 0"):
        Config(share=0)
    with pytest.raises(ValueError, match="ar_net gives points"):
        build("ar_net", WindowShape(8, 2, outputs=2))
