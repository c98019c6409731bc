"""A table in, history and forecast out: the same numbers as the forecaster gives, and an answer to every bad table."""

import io
import math
import sys

import numpy as np
import pytest

pd = pytest.importorskip("pandas", reason="forecasting needs pandas")
H = 12


@pytest.fixture(scope="module")
def frame():
    times, rng = pd.date_range("2024-01-01", periods=240, freq="h"), np.random.default_rng(0)
    wave = 10 + 3 * np.sin(np.arange(240) * 2 * math.pi / 24) + rng.normal(0, 0.3, 240)
    parts = [pd.DataFrame({"unique_id": name, "ds": times, "y": wave * size}) for name, size in (("a", 1), ("b", 5))]
    return pd.concat(parts, ignore_index=True)


def asked(client, text, **options):
    return client.post("/v1/forecasts", json={"csv": text, "h": H, **options})


def test_it_is_the_forecaster_s_own(client, frame):
    from runnel.forecast import Forecaster

    found = asked(client, frame.to_csv(index=False), level=[90], history=30)
    assert found.status_code == 200, found.text
    expected = Forecaster(H).fit(pd.read_csv(io.StringIO(frame.to_csv(index=False)), parse_dates=["ds"]))
    expected = expected.predict(level=[90])
    assert [series["id"] for series in found.json()["series"]] == ["a", "b"]
    for series in found.json()["series"]:
        own = expected[expected["unique_id"] == series["id"]]
        assert series["forecast"]["mean"] == pytest.approx(own["ridge"].tolist(), rel=1e-6)
        assert series["forecast"]["lo-90"] == pytest.approx(own["ridge-lo-90"].tolist(), rel=1e-6)
        assert series["forecast"]["hi-90"] == pytest.approx(own["ridge-hi-90"].tolist(), rel=1e-6)
        assert series["forecast"]["ds"][0] == "2024-01-11T00:00:00"
        assert series["history"]["y"] == pytest.approx(frame[frame["unique_id"] == series["id"]]["y"].tolist()[-30:])


def test_a_wide_table_has_a_series_a_column(client, frame):
    wide = frame.pivot(index="ds", columns="unique_id", values="y").reset_index()
    long, found = asked(client, frame.to_csv(index=False)).json(), asked(client, wide.to_csv(index=False)).json()
    assert found == long
    numbers = "y\n" + "\n".join(map(str, frame["y"][:100]))
    (series,) = asked(client, numbers, season=24).json()["series"]
    assert series["forecast"]["ds"] == list(range(100, 100 + H))


def test_a_series_that_cannot_be_forecast_is_named(client, frame):
    twice = pd.concat([frame, pd.DataFrame({"unique_id": ["bad"] * 2, "ds": [frame["ds"][0]] * 2, "y": [1, 2]})])
    found = asked(client, twice.to_csv(index=False)).json()
    assert [series["id"] for series in found["series"]] == ["a", "b"]
    assert set(found["problems"]) == {"bad"}


@pytest.mark.parametrize(
    "text",
    ["\n", "a", "a,b", "a,b\n1,2\n", "ds,y\nx,1\ny,2\n", "unique_id,ds,y\n" + "a,2024-01-01,1\n" * 50, '"', "\0,1\n2,3",
     "unique_id,ds,y\na,1,x\n", "a,b\n" + "1,2,3,4\n" * 9, "ds,y\n" + "".join(f"{10**i},1\n" for i in range(30)),
     "ds,y\n" + "".join(f"{i},1e308\n" for i in range(90)), "ds,y\n" + "".join(f"{i},inf\n" for i in range(90)),
     "ds,y\n" + "".join(f"{i},\n" for i in range(90)), "ds,ds,y,y\n" + "".join(f"{i},{i},1,1\n" for i in range(90)),
     "unique_id,ds,y\n" + "".join(f"s{i % 51},{i},1\n" for i in range(102)), "unique_id,unique_id,ds,y\n1,2,3,4\n",
     "ds,y\n" + "".join(f"{2000 + 40 * i}-01-01,1\n" for i in range(40))],
)  # fmt: skip
def test_no_table_is_the_server_s_fault(client, text):
    found = asked(client, text)
    assert found.status_code in (200, 400), found.text
    if found.status_code == 400:
        assert "\n" not in found.json()["error"]["message"]


@pytest.mark.parametrize(
    "change", [{"h": 0}, {"h": 1001}, {"level": [100]}, {"freq": "nonsense"}, {"backbone": "mamba2"}, {"more": 1}]
)
def test_what_it_refuses(client, frame, change):
    assert asked(client, frame.to_csv(index=False), **change).status_code == 400


def test_without_pandas_one_line_says_so(client, monkeypatch):
    monkeypatch.setitem(sys.modules, "pandas", None)
    found = asked(client, "ds,y\n1,2\n")
    assert found.status_code == 501
    assert found.json()["error"]["message"].endswith("pip install 'runnel[forecast]'")
