import pytest
import torch
from forecasters.support import a_window, mean_error, parts, seasonal

from runnel.forecasters.xlstmtime import Config, reference
from runnel.windows import FitConfig, Window, WindowShape, build


def small(**options):
    return Config(**{"kernel": 5, "d_model": 16, "cells": "slstm, mlstm", **options})


@pytest.mark.parametrize("channels, kernel", [(1, 4), (3, 5)])
def test_equals_the_loop(channels, kernel):
    shape = WindowShape(9, 4, channels=channels, outputs=2)
    model, window = build(small(kernel=kernel), shape).double(), a_window(shape)
    for part in (model.trend, model.rest):
        torch.nn.init.normal_(part.weight)
    for row in range(3):
        expected = reference(model, window.history[row]).view(channels, 4, 2).transpose(0, 1)
        assert (model(window)[row] - expected).abs().max() < 1e-9


def test_a_variate_reads_those_before_it():
    shape = WindowShape(9, 4, channels=3)
    model, window = build(small(), shape).double(), a_window(shape)
    moved = window.history.clone()
    moved[..., 1] = torch.randn(9)
    change = (model.point(Window(moved)) - model.point(window)).abs().amax((0, 1)) > 1e-9
    assert change.tolist() == [False, True, True]


def test_learns_trend_and_season():
    shape = WindowShape(24, 6, channels=2)
    table = seasonal()
    rising = type(table)(table.values + 0.01 * torch.arange(400)[:, None], table.lengths)
    train, valid = parts(rising, shape)
    model = build(small(), shape)
    model.fit(train, valid, FitConfig(steps=100, lr=1e-2, valid_every=50, batch_size=16))
    assert mean_error(model, valid) < 0.05 < mean_error(build("last_value", shape), valid)


def test_refuses_what_there_is_not():
    with pytest.raises(ValueError, match="kernel of xlstmtime must be at least 1; got 0"):
        Config(kernel=0)
    with pytest.raises(ValueError, match="no mixer is called 'lstmm'"):
        build(Config(cells="lstmm"), WindowShape(9, 4))
