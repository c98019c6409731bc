import pytest

from runnel.train import metrics
from runnel.train.metrics import MetricsLog


def write(folder, *lines):
    with MetricsLog(folder, step=0, validated=0, tensorboard=False) as log:
        for split, step in lines:
            log.write({"split": split, "step": step})


def test_lines_that_the_checkpoint_does_not_know_are_dropped(tmp_path):
    write(tmp_path, ("train", 1), ("train", 2), ("valid", 2), ("train", 3), ("train", 4), ("valid", 4))
    with MetricsLog(tmp_path, step=4, validated=2, tensorboard=False) as log:
        log.write({"split": "valid", "step": 4})
    found = [(line["split"], line["step"]) for line in metrics.read(tmp_path)]
    assert found == [("train", 1), ("train", 2), ("valid", 2), ("train", 3), ("train", 4), ("valid", 4)]


def test_a_line_cut_short_is_left_out(tmp_path):
    write(tmp_path, ("train", 1))
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"split": "train", "st')
    assert [line["step"] for line in metrics.read(tmp_path)] == [1]


@pytest.mark.parametrize("line", ["not json", "[]", '{"step": 1}'])
def test_a_damaged_line_is_named(tmp_path, line):
    write(tmp_path, ("train", 1))
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write(line + "\n")
    with pytest.raises(ValueError, match=r"metrics.jsonl line 2 must be a JSON object with split and step; got"):
        metrics.read(tmp_path)
