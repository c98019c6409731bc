import pytest
import torch
from forecasters.support import a_window, mean_error, parts, seasonal

import runnel
from runnel.forecasters.autotimes import Config, reference
from runnel.windows import FitConfig, Window, WindowShape, build


def small(**options):
    return Config(**{"segment": 4, "pattern": "attention, mamba2", "d_model": 8, **options})


@pytest.mark.parametrize("history, horizon", [(12, 9), (7, 4), (2, 3)])
def test_carrying_on_equals_reading_anew(history, horizon):
    shape = WindowShape(history, horizon, channels=2)
    model, window = build(small(), shape).double(), a_window(shape)
    with torch.no_grad():
        for row in range(3):
            for channel in range(2):
                expected = reference(model, window.history[row, :, channel], horizon)
                assert (model(window)[row, :, channel, 0] - expected).abs().max() < 1e-9


def test_one_model_serves_other_lookbacks_and_horizons():
    shape = WindowShape(24, 8)
    train, valid = parts(seasonal(channels=1), shape)
    model = build(small(pattern="mingru"), shape)
    model.fit(train, valid, FitConfig(steps=150, lr=1e-2, valid_every=50, batch_size=32))
    assert mean_error(model, valid) < 0.05 < mean_error(build("last_value", shape), valid)
    other = WindowShape(48, 20)
    window = parts(seasonal(channels=1), other)[1].take(torch.arange(20))
    level, scale = window.history.mean(1, keepdim=True), window.history.std(1, keepdim=True)
    with torch.no_grad():
        found = model.forecast(Window((window.history - level) / scale), 20)[..., 0] * scale + level
    assert float((found - window.target).square().mean()) < 0.1


def test_the_layers_of_a_language_model_stay_as_they_are(tmp_path):
    text = runnel.build("mingru", vocab_size=16, d_model=8, n_layers=1, seed=1)
    runnel.save(text, tmp_path)
    shape = WindowShape(12, 4)
    model = build(small(trunk=str(tmp_path)), shape)
    train, valid = parts(seasonal(rows=120, channels=1), shape)
    before = [p.clone() for p in model.embed.parameters()]
    model.fit(train, valid, FitConfig(steps=20, lr=1e-2, valid_every=10))
    frozen = zip(text.layers.parameters(), model.trunk.layers.parameters(), strict=True)
    assert all(torch.equal(a, b) for a, b in frozen)
    assert not any(torch.equal(a, b) for a, b in zip(before, model.embed.parameters(), strict=True))


def test_segments_beyond_the_target_do_not_count_and_marks_do():
    shape = WindowShape(8, 6, future=1)  # the second segment of the target has two rows
    model, window = build(small(), shape).double(), a_window(shape)
    whole = model.loss(window, FitConfig())
    assert whole.isfinite()
    later = window.future.clone()
    later[:, 11] += 1  # the last row of the first segment of the target
    assert model.loss(Window(window.history, window.target, future=later), FitConfig()) != whole
    assert not torch.allclose(model(Window(window.history, future=later)), model(window))


def test_refuses_what_there_is_not():
    with pytest.raises(ValueError, match="segment of autotimes must be at least 1; got 0"):
        Config(segment=0)
    with pytest.raises(ValueError, match="autotimes gives points"):
        build("autotimes", WindowShape(8, 2, outputs=2))
