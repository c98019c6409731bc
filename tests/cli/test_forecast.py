"""`runnel forecast` as it is used."""

import json

import numpy as np
import pytest

from tests.cli.conftest import examples


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A wide table of two hourly series."""
    folder = tmp_path_factory.mktemp("forecast")
    hours = np.datetime_as_string(np.datetime64("2024-01-01T00") + np.arange(700), unit="s")
    noise = np.random.default_rng(0).normal(size=(2, 700))
    rows = [
        f"{hour},{10 + np.sin(2 * np.pi * i / 24) + 0.1 * noise[0, i]:.4f},{i % 24 + noise[1, i]:.4f}"
        for i, hour in enumerate(hours)
    ]
    (folder / "data.csv").write_text("date,load,heat\n" + "\n".join(rows) + "\n")
    return folder


def test_the_example(folder, in_process):
    (line,) = examples("forecast")
    code, out, error = in_process([*line.split()[1:], "--windows", 2, "--threads", 1], folder)
    assert code == 0, error
    for word in ("ridge-lo-90", "seasonal_naive", "last_value", "MASE", "in 90% interval", "forecast.csv"):
        assert word in out
    assert (folder / "forecast.png").read_bytes()[:4] == b"\x89PNG"
    lines = (folder / "forecast.csv").read_text().splitlines()
    assert lines[0] == "unique_id,ds,ridge,ridge-lo-90,ridge-hi-90" and len(lines) == 1 + 2 * 96


def test_numbers_for_machines(folder, in_process):
    arguments = ["forecast", "data.csv", "--horizon", 12, "--model", "seasonal_naive", "--json", "--threads", 1]
    found = json.loads(in_process(arguments, folder)[1])
    assert [line["model"] for line in found["backtest"]] == ["seasonal_naive", "last_value", "ridge"]
    assert found["backtest"][0]["skill"] == 0 and found["backtest"][2]["skill"] > 0.1 and found["series"] == 2


def test_series_that_are_left_out_are_named_once(folder, in_process):
    rows = [f"{id},2024-01-{1 + h // 24:02} {h % 24:02}:00:00,{h % 24}" for id in ("a", "b") for h in range(200)]
    short = [f"short,2024-01-01 {h:02}:00:00,1" for h in range(8)]
    (folder / "long.csv").write_text(
        "\n".join(["unique_id,ds,y", *rows, *short, "twice,2024-01-01,1", "twice,2024-01-01,2"])
    )
    code, out, error = in_process(["forecast", "long.csv", "--horizon", 6, "--block", 2, "--threads", 1], folder)
    assert code == 0, error
    assert out.count("twice has a time twice") == 1 and out.count("short has fewer than 19 rows") == 1
    assert "Warning" not in out + error


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["none.csv"], "none.csv"),
        (["data.csv", "--horizon", 0], "h must be a whole number of at least 1; got 0"),
        (["data.csv", "--model", "rigde"], "backbone must be one of"),
        (["data.csv", "--level", 200], "--level in (0, 100)"),
        (["data.csv", "--horizon", 900], "at least one series must have h + 1 = 901 rows"),
    ],
)
def test_what_cannot_be_forecast_is_said(folder, in_process, arguments, said):
    code, _, error = in_process(["forecast", *arguments, "--windows", 0], folder)
    assert code == 2
    assert said in error
