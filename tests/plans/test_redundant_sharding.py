"""Layouts: all of them looked at, memory as measured, published runs possible."""

from dataclasses import replace

import pytest

from runnel.plans import Cluster, Measured, Sending, Workload
from runnel.plans._layouts import Config, Layout, estimate
from runnel.plans.redundant_sharding import plans, reference

BILLION = Workload(
    parameters=1_000_000_000,
    matrices=900_000_000,
    layers=16,
    d_model=2048,
    states=16 * 16 * 128 * 128 * 4,
    keys=0,
    attention=0,
    outcomes=32_000,
    length=1 << 21,
    rows=1,
)


def test_the_first_plan_is_the_exhaustive_best():
    for devices, rows in (("16xH100", 16), ("64xA100", 4), ("2xV100", 2)):
        cluster = Cluster.parse(devices)
        work = Workload(**{**vars(BILLION), "rows": rows, "length": 1 << 16})
        best = plans(work, cluster)[0]
        assert (best.layout if best.fits else None) == reference(work, cluster, Config())


@pytest.mark.parametrize(("devices", "length"), [("64xA100", 1 << 21), ("128xA100", 1 << 22)])
def test_published_runs_are_possible(devices, length):
    work = Workload(**{**vars(BILLION), "length": length})
    best = plans(work, Cluster.parse(devices))[0]
    assert best.fits and best.layout.sequence == int(devices.split("x")[0])


def test_one_device_cannot_hold_what_64_can():
    assert not any(plan.fits for plan in plans(BILLION, Cluster.parse("1xA100")))


def test_what_layers_send_grows_only_with_attention():
    cluster, layout = Cluster.parse("8xH100"), Layout(8, 1, 8, 8, False)
    sent = []
    for keys, length in ((0, 1 << 10), (0, 1 << 16), (512, 1 << 10), (512, 1 << 16)):
        work = Workload(**{**vars(BILLION), "states": 0 if keys else 4096, "keys": keys, "length": length})
        sent.append(estimate(work, cluster, layout, Config()).sent["sequence"])
    assert sent[0] == sent[1] and sent[3] == 64 * sent[2]


def test_micro_batches_hold_less_and_gather_more_often():
    cluster, layout = Cluster.parse("8xH100"), Layout(1, 8, 8, 8, False)
    whole = Workload(**{**vars(BILLION), "rows": 32, "length": 1024})
    at_once, parted = [
        estimate(work, cluster, layout, Config()) for work in (whole, replace(whole, rows=8, accumulate=4))
    ]
    assert parted.memory["activations"] * 4 == at_once.memory["activations"]
    assert parted.memory["logits"] * 4 == at_once.memory["logits"]
    assert parted.memory["optimizer"] == at_once.memory["optimizer"]
    assert parted.sent["parameters"] == 4 * at_once.sent["parameters"]
    assert parted.sent["updates"] == at_once.sent["updates"]
    assert parted.compute == at_once.compute
    few = estimate(replace(whole, logits=1 << 22), cluster, layout, Config())
    assert few.memory["logits"] == (1 << 22) * Config().logits < at_once.memory["logits"]


def test_cutting_more_takes_less_memory_and_sends_more():
    cluster, work = Cluster.parse("8xH100"), Workload(**{**vars(BILLION), "rows": 8, "length": 1024})
    whole, cut = [estimate(work, cluster, Layout(1, n, n, n, False), Config()) for n in (1, 8)]
    assert cut.memory["parameters"] * 8 == whole.memory["parameters"]
    assert sum(cut.sent.values()) > sum(whole.sent.values())


def test_sending_takes_what_was_measured_and_never_less_than_the_link():
    cluster, layout = Cluster.parse("8xH100"), Layout(1, 8, 8, 8, False)
    nothing = {1: (0.0,)}
    measured = Measured(nothing, nothing, {1: ((0.0,),)}, nothing, nothing, 0.0)
    slow = {"gather": 1e-9, "scatter": 2e-9}
    work = [
        replace(BILLION, rows=8, length=1024, measured=replace(measured, sending=sending))
        for sending in (Sending(), Sending(gather=1e-15), Sending(**slow))
    ]
    link, quick, measured = [estimate(one, cluster, layout, Config()) for one in work]
    assert quick.communication == link.communication == pytest.approx(sum(link.sent.values()) / cluster.speed(8))
    assert measured.communication == pytest.approx(
        measured.sent["parameters"] * 1e-9 + measured.sent["gradients"] * 2e-9
    )
    assert measured.sent == link.sent


def test_bad_questions_are_refused():
    with pytest.raises(ValueError, match="devices must be like 64xH100; got 'many'"):
        Cluster.parse("many")
    with pytest.raises(ValueError, match="no device is called 'H101'; did you mean 'H100'"):
        Cluster.parse("4xH101")
    with pytest.raises(ValueError, match="must be shared evenly by 3 devices"):
        plans(BILLION, Cluster.parse("3xA100"))
