"""The protocol of the standard table, on the real file: figures of models that need no training are exact."""

import pytest
import torch

from runnel.forecast import protocol
from runnel.forecasters.last_value import Config as LastValue
from runnel.forecasters.ridge import Config as Ridge
from runnel.forecasters.seasonal_naive import Config as SeasonalNaive
from runnel.windows import build

RIDGE = {
    (96, 96): (0.383, 0.392),
    (336, 96): (0.370, 0.391),
    (512, 96): (0.363, 0.391),
    (96, 720): (0.462, 0.456),
    (336, 720): (0.421, 0.444),
    (512, 720): (0.419, 0.444),
}
NAIVE = {
    (LastValue(), 96): (1.294, 0.713),
    (LastValue(), 720): (1.335, 0.755),
    (SeasonalNaive(24), 96): (0.512, 0.433),
    (SeasonalNaive(24), 720): (0.655, 0.514),
}
ROUNDED = 5.5e-4
"""Half of the last decimal; .462 is .46146, rounded first to .4615 and then once more."""


@pytest.fixture(scope="module")
def etth1(shared_data):
    return protocol.read(shared_data / "ETTh1.csv")


def test_parts_of_the_file(etth1):
    assert etth1.columns == ("HUFL", "HULL", "MUFL", "MULL", "LUFL", "LULL", "OT")
    assert etth1.season == 24 and etth1.table.values.shape == (14400, 7)
    for horizon, count in ((96, 2785), (720, 2161)):
        assert len(etth1.test(etth1.shape(336, horizon))) == count
    train = etth1.table.values[:8640].double()
    assert train.mean(0).abs().max() < 1e-6 and (train.std(0, unbiased=False) - 1).abs().max() < 1e-6


@pytest.mark.parametrize("case", RIDGE, ids=str)
def test_ridge_has_the_figures_of_the_protocol(etth1, case):
    shape = etth1.shape(*case)
    model = build(Ridge(), shape)
    model.fit(etth1.train(shape), etth1.valid(shape))
    score = protocol.evaluate(model, etth1.test(shape))
    assert (score.mse, score.mae) == pytest.approx(RIDGE[case], abs=ROUNDED)


@pytest.mark.parametrize("case", NAIVE, ids=str)
def test_naive_forecasts_have_the_figures_of_the_protocol(etth1, case):
    config, horizon = case
    shape = etth1.shape(96, horizon)
    score = protocol.evaluate(build(config, shape), etth1.test(shape))
    assert (score.mse, score.mae) == pytest.approx(NAIVE[case], abs=ROUNDED)


def test_no_window_reads_a_target_of_its_own_part_or_a_later_one(etth1):
    shape = etth1.shape(96, 96)
    parts = (etth1.train(shape), etth1.valid(shape), etth1.test(shape))
    for windows, low, high in zip(parts, (96, 8640, 11520), etth1.ends, strict=True):
        assert int(windows.first.min()) == low and int(windows.first.max()) + 96 == high


def test_the_calendar_is_known_ahead(tmp_path):
    path = tmp_path / "days.csv"
    rows = [f"2024-01-{1 + h // 24:02} {h % 24:02}:00:00,{h}" for h in range(240)]
    path.write_text("date,a\n" + "\n".join(rows) + "\n")
    data = protocol.read(path).with_calendar()
    window = data.test(shape := data.shape(24, 6)).take(torch.tensor([0]))
    assert shape.future == 4 and window.future.shape == (1, 30, 4)
    last = window.future[0, -1]  # row 192 + 5: the ninth of January, a Tuesday, at five
    assert last == pytest.approx([5 / 23 - 0.5, 1 / 6 - 0.5, 8 / 30 - 0.5, 8 / 365 - 0.5])
    path.write_text("row,a\n" + "\n".join(f"r{h},{h}" for h in range(240)) + "\n")
    with pytest.raises(ValueError, match="days must have dates in its first column"):
        protocol.read(path).with_calendar()


def test_short_files_and_bad_files(tmp_path):
    path = tmp_path / "short.csv"
    path.write_text("date,a\n" + "".join(f"2020-01-01 00:{m:02}:00,{m % 7}\n" for m in range(0, 60, 2)))
    assert protocol.read(path).ends == (18, 24, 30)
    path.write_text("date,a\n2020-01-01,x\n")
    with pytest.raises(ValueError, match="must hold a date and numbers"):
        protocol.read(path)
