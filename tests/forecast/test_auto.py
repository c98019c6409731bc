"""auto: what is blended is chosen without the rows that it is judged on, and all of it is told."""

import numpy as np
import pytest
from forecast.support import frame, wave

from runnel.forecast import Forecaster, auto, protocol, standard
from runnel.windows import WindowShape


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """A file of the ETT kind, cut at 60 and 80 per cent."""
    path = tmp_path_factory.mktemp("data") / "small.csv"
    rng = np.random.default_rng(0)
    angle = 2 * np.pi * np.arange(1600) / 24
    columns = [np.sin(angle + shift) + 0.2 * rng.normal(size=1600) for shift in (0, 1)]
    hours = np.datetime_as_string(np.datetime64("2020-01-01T00") + np.arange(1600), unit="s")
    rows = [f"{hour.replace('T', ' ')},{a:.4f},{b:.4f}" for hour, a, b in zip(hours, *columns, strict=True)]
    path.write_text("date,a,b\n" + "\n".join(rows) + "\n")
    return protocol.read(path)


def test_candidates_fit_the_history_and_the_budget():
    shape = WindowShape(200, 12, channels=2, season=24)
    members = auto.config(shape, 200, 4, auto.Config()).members
    assert max(m.history for m in members) <= 200 and {"season x 7", "joint", "ridge, mean"} <= {
        m.name for m in members
    }
    names = {m.name for m in auto.config(shape, 800, 4, auto.Config(900.0)).members}
    assert {"attention", "mingru", "season x 28"} <= names
    alone = auto.config(WindowShape(30, 5), 30, 4, auto.Config()).members
    assert alone[0].name == "last" and {m.history for m in alone[1:]} == {30}
    with pytest.raises(ValueError, match="budget of auto must be positive; got 0"):
        auto.Config(0)


def test_the_table_has_every_model_and_tells_what_auto_chose(small):
    lines = list(standard.lines(small, ("seasonal_naive", "ridge", "auto"), (6,), (96,)))
    assert [line.model for line in lines] == ["seasonal_naive", "ridge", "auto"]
    naive, ridge, best = lines
    assert ridge.p is None and naive.difference == pytest.approx(naive.mse - ridge.mse, rel=1e-5) and naive.p < 1e-3
    assert best.mse < 1.05 * ridge.mse < naive.mse
    assert naive.windows == ridge.windows == best.windows == 320 - 6 + 1
    told = best.report.splitlines()
    assert len(told) == 1 + len(auto.config(small.shape(96, 6), 960 // 4, 4, auto.Config()).members)
    weights = [float(line[26:34]) for line in told[1:]]
    assert sum(weights) == pytest.approx(1, abs=0.02) and weights == sorted(weights, reverse=True)


def test_trained_models_have_a_line_a_seed(small):
    from runnel.windows import FitConfig

    quick = FitConfig(steps=3, valid_every=3)
    lines = list(standard.lines(small, ("dlinear", "ridge"), (6,), (24, 48), range(2), fit=quick))
    trained = [("dlinear", rows, seed) for rows in (24, 48) for seed in (0, 1)]
    cases = [(line.model, line.lookback, line.seed) for line in lines]
    assert cases == [*trained, ("ridge", 24, 0), ("ridge", 48, 0)]


def test_auto_in_front_of_a_frame():
    f = Forecaster(h=6, backbone="auto").fit(frame(rows=400))
    out = f.predict(level=[90])
    for id, part in out.groupby("unique_id"):
        assert np.abs(part["auto"] - wave(id, part["ds"])).max() < 0.4 * (1 + int(id[1:]))
    assert "season x 1" in f.report and (out["auto-lo-90"] < out["auto-hi-90"]).all()


def test_networks_are_candidates_where_the_budget_allows_it():
    asked = auto.Config(budget=600.0, steps=2)
    f = Forecaster(h=4, backbone=asked, lookback=24, seed=3).fit(frame(series=2, rows=160))
    found = {line.name: line for line in auto.lines(f.fitted.model)}
    assert {"attention", "mingru"} <= set(found) and len(found["mingru"].errors) == len(found["attention"].errors) == 4
    trained = [member for member in f.fitted.model.config.members if member.name in ("attention", "mingru")]
    assert all(m.fit.seconds == 0.6 * 600 / 8 and m.fit.steps == 2 and m.fit.seed == 3 for m in trained)
    assert np.isfinite(f.predict()["auto"]).all()


def test_networks_have_a_line_a_seed_and_closed_forms_one():
    cases = [list(standard._cases(("auto",), (96,), range(3), budget)) for budget in (300.0, 900.0)]
    assert [[case[3] for case in found] for found in cases] == [[0], [0, 1, 2]]
