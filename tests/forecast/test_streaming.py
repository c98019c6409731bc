"""A stream's forecast is that of reading the whole history anew; an old stream stays valid."""

import numpy as np
import pandas as pd
import pytest
import torch
from forecast.support import frame

from runnel.forecast import Forecaster, streaming
from runnel.forecasters import backbone
from runnel.state import leaves
from runnel.windows import FitConfig

START = pd.Timestamp("2024-01-01")


def fitted(data, pattern="mingru", **settings):
    config = backbone.Config(pattern, "value", d_model=16, norm="none", dropout=0.0)
    return Forecaster(h=4, freq="h", backbone=config, fit=FitConfig(steps=3, valid_every=3), **settings).fit(data)


@pytest.mark.parametrize("pattern", ["mingru", "mamba2", "gated_deltanet", "slstm"])
@pytest.mark.parametrize("settings", [{}, {"together": True}, {"head": "gaussian"}, {"block": 2, "paths": 5}], ids=str)
def test_updates_equal_reading_everything_anew(pattern, settings):
    data = frame(rows=230)
    early = data[data["ds"] < START + pd.Timedelta("200h")]
    f = fitted(early, pattern, **settings)
    f.fitted.model.double()
    stream = first = streaming.begin(f)
    values = data.pivot(index="unique_id", columns="ds", values="y").to_numpy()[:, 200:]
    before = streaming.forecast(f, first)
    for step in range(10):
        stream = streaming.update(f, stream, values[:, step])
    stream = streaming.update(f, stream, values[:, 10:25])
    stream = streaming.update(f, stream, data[data["ds"] >= START + pd.Timedelta("225h")])
    anew = streaming.begin(f, data)
    found, expected = (streaming.forecast(f, s, level=[80]) for s in (stream, anew))
    pd.testing.assert_frame_equal(found, expected, rtol=1e-9)
    pd.testing.assert_frame_equal(streaming.forecast(f, first), before)
    assert found["ds"].min() == data["ds"].max() + pd.Timedelta("1h")


def test_series_of_different_lengths_and_missing_values():
    data = frame()
    data = data[(data["unique_id"] != "s1") | (data["ds"] >= "2024-01-03")]
    f = fitted(data)
    alone = streaming.begin(f, data)
    assert alone.rows.tolist() == [200, 152, 200]
    held = streaming.update(f, alone, [np.nan, 1.0, 2.0])
    last = data[data["unique_id"] == "s0"]["y"].iloc[-1]
    same = streaming.update(f, alone, [last, 1.0, 2.0])
    assert torch.allclose(held.hidden, same.hidden, atol=1e-5)


def test_the_size_of_a_stream_does_not_grow():
    data = frame()
    f = fitted(data)
    stream = streaming.begin(f)
    later = streaming.update(f, stream, np.ones((3, 50)))
    assert later.hidden.shape == stream.hidden.shape
    assert [t.shape for t in leaves(later.memory)] == [t.shape for t in leaves(stream.memory)]


def test_refusals():
    data = frame()
    f = fitted(data)
    stream = streaming.begin(f)
    with pytest.raises(ValueError, match=r"new rows must be \(3,\) or \(3, T\)"):
        streaming.update(f, stream, [1.0, 2.0])
    with pytest.raises(ValueError, match="must follow at once, from 2024-01-09"):
        streaming.update(f, stream, data[data["ds"] == data["ds"].max()])
    with pytest.raises(ValueError, match="a stream needs"):
        streaming.begin(Forecaster(h=2).fit(data))
