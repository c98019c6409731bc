import json

import matplotlib.colors
import matplotlib.image
import numpy as np
import pytest
from small_run import run

from runnel.train.plot import BLUE, GREY, VERMILION, plot


def pixels(path, colour):
    """How many pixels of the PNG have this colour."""
    image = matplotlib.image.imread(path)[..., :3]
    return int((np.abs(image - matplotlib.colors.to_rgb(colour)).max(-1) < 0.02).sum())


def test_curves_and_baselines_are_drawn(text, tmp_path):
    run(text, tmp_path)
    plot(tmp_path, tmp_path / "plain.png")
    plot(tmp_path, tmp_path / "loss.png", {"unigram": 3.8, "order 3": 2.1}, title="words")
    assert pixels(tmp_path / "loss.png", BLUE) > 300
    assert pixels(tmp_path / "loss.png", VERMILION) > 300
    assert pixels(tmp_path / "loss.png", GREY) > pixels(tmp_path / "plain.png", GREY) + 300


def test_one_step_is_enough(tmp_path):
    line = {"split": "train", "step": 1, "tokens": 10, "bits_per_token": 3.0}
    (tmp_path / "metrics.jsonl").write_text(json.dumps(line) + "\n")
    plot(tmp_path, tmp_path / "loss.png")
    assert pixels(tmp_path / "loss.png", BLUE) > 0


def test_no_step_is_an_error(tmp_path):
    with pytest.raises(ValueError, match="must hold at least one training step"):
        plot(tmp_path, tmp_path / "loss.png")
