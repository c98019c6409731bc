"""Tasks: a model that knows nothing is at chance, and scores say how far from chance to the optimum."""

import math

import pytest
import torch

import runnel
from runnel.compare import tasks


@pytest.mark.parametrize("task", tasks.TASKS, ids=lambda task: task.name)
def test_a_fresh_control_is_near_chance_at_every_length(task):
    source = task.open(1, tasks.TRAIN_ROWS, 0)
    model = runnel.build(tasks.CONTROL, d_model=8, n_layers=1, **tasks.domain(source))
    torch.nn.init.zeros_(next(iter(model.head.parameters())))
    scores = tasks.score_all(model, task, 0)
    assert list(scores) == ["1", "2", "4", "16"]
    for score in scores.values():
        assert score["targets"] > 0
        if source.vocab_size:
            assert score["nats"] == pytest.approx(math.log(source.vocab_size), abs=1e-4)
        assert tasks.share(task, tasks.shown(task, score), score, None) < 0.35
        assert score["optimal_nats"] < score["chance_nats"]


def test_shares_run_from_what_is_trivial_to_the_optimum():
    """Of an accuracy: chance 1/4, or a control that is better; of nats: the smaller excess of the two."""
    task, score = tasks.find("dyck")[0], {"chance_nats": math.log(4), "optimal_nats": 0.0}
    assert tasks.share(task, 0.625, score, None) == pytest.approx(0.5)
    assert tasks.share(task, 0.625, score, 0.1) == pytest.approx(0.5)
    assert tasks.share(task, 0.75, score, 0.5) == pytest.approx(0.5)
    assert tasks.share(task, 0.2, score, 0.5) == 0.0
    nats, score = tasks.find("piecewise_stationary")[0], {"chance_nats": 1.5, "optimal_nats": 0.5}
    assert tasks.share(nats, 0.25, score, None) == pytest.approx(0.75)
    assert tasks.share(nats, 0.25, score, 0.5) == pytest.approx(0.5)
    assert tasks.share(nats, math.nan, score, 0.5) == 0.0
    assert tasks.share(nats, 0.0, score, 0.5) == 1.0


def test_names():
    assert [task.name for task in tasks.find("parity,dyck")] == ["parity", "dyck"]
    assert tasks.find("none") == []
    assert len(tasks.find("all")) == len(tasks.TASKS) == 13
    with pytest.raises(ValueError, match="there is no task 'chess'; there are: recall, "):
        tasks.find("chess")
