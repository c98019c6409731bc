import pytest

from runnel.train.schedules import SCHEDULES, cosine, wsd


@pytest.mark.parametrize("schedule", SCHEDULES.values(), ids=SCHEDULES.keys())
def test_up_to_one_and_down_to_the_last_rate(schedule):
    factors = [schedule(step / 1000, 0.1, 0.2, 0.05) for step in range(1001)]
    assert factors[0] == 0.0
    assert factors[50] == pytest.approx(0.5)
    assert factors[100] == max(factors) == 1.0
    assert factors[1000] == pytest.approx(0.05)
    assert factors[:101] == sorted(factors[:101])
    assert factors[100:] == sorted(factors[100:], reverse=True)


@pytest.mark.parametrize("schedule", SCHEDULES.values(), ids=SCHEDULES.keys())
def test_no_warmup_and_no_cooldown(schedule):
    assert schedule(0.0, 0.0, 0.0, 0.0) == 1.0


def test_cosine_is_half_way_in_the_middle():
    assert cosine(0.6, 0.2, 0.0, 0.0) == pytest.approx(0.5)


def test_wsd_stays_and_then_falls_as_one_minus_sqrt():
    assert {wsd(progress, 0.1, 0.2, 0.0) for progress in (0.1, 0.3, 0.79)} == {1.0}
    assert wsd(0.85, 0.1, 0.2, 0.0) == pytest.approx(0.5)  # a quarter along, sqrt(1/4)
