import math
import sys
import threading
from dataclasses import replace

import pytest
import small_run
import torch
from small_run import SAVING, SETTINGS, exported, make_model, make_source, run

import runnel
import runnel.codecs
from runnel.objectives import next_token
from runnel.train import Diverged, TrainConfig, checkpoint, fit, metrics


def score(folder, text):
    """Mean nats per held-out target of an exported model."""
    model, batches = runnel.load(folder).eval(), list(make_source(text).valid())
    with torch.no_grad():
        nats = sum(float(next_token.loss(model, batch)) * batch.n_targets for batch in batches)
    return nats / sum(batch.n_targets for batch in batches)


def part_of_checkpoint(folder, prefix):
    tensors = checkpoint.load(folder).tensors
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_it_learns_and_exports_what_it_scored(text, tmp_path, optimizer):
    result = run(text, tmp_path, noisy=False, steps=150, valid_every=None, optimizer=optimizer)
    assert result.valid_bits_per_byte < 2.0  # the entropy of single letters here is about 3.8 bits
    assert result.valid_bits_per_byte == pytest.approx(result.valid_loss / math.log(2))
    assert score(tmp_path, text) == pytest.approx(result.valid_loss, rel=1e-6)
    assert (result.step, result.stopped, result.tokens) == (150, "steps", 150 * 4 * 24)
    assert runnel.codecs.load(tmp_path).name == "bytes"


def test_the_same_run_twice_has_the_same_bits(text, tmp_path):
    run(text, tmp_path / "a")
    run(text, tmp_path / "b")
    assert exported(tmp_path / "a") == exported(tmp_path / "b")


def test_the_seed_is_of_the_generator(text, tmp_path):
    run(text, tmp_path / "a")
    run(text, tmp_path / "b", seed=1)
    assert exported(tmp_path / "a") != exported(tmp_path / "b")


def test_validation_changes_no_weight(text, tmp_path):
    run(text, tmp_path / "often", valid_every=1)
    run(text, tmp_path / "never", valid_every=None)
    assert exported(tmp_path / "often") == exported(tmp_path / "never")


def test_accumulated_micro_batches_are_one_batch(text, tmp_path):
    config = TrainConfig(**{**SETTINGS, "steps": 3, "valid_every": None})
    models = [make_model(noisy=False).double() for _ in range(2)]
    fit(models[0], make_source(text, batch_size=8), tmp_path / "one", config)
    fit(models[1], make_source(text, batch_size=4), tmp_path / "two", replace(config, accumulate=2))
    for one, two in zip(models[0].parameters(), models[1].parameters(), strict=True):
        torch.testing.assert_close(one, two, rtol=1e-6, atol=1e-9)


def test_the_average_is_exported(text, tmp_path):
    run(text, tmp_path, ema=0.9)
    average, last = part_of_checkpoint(tmp_path, "average/"), part_of_checkpoint(tmp_path, "model/")
    for name, parameter in runnel.load(tmp_path).named_parameters():
        assert torch.equal(parameter, average[name])
    assert any(not torch.equal(average[name], last[name]) for name in average)


def test_patience_stops_and_exports_the_best(text, tmp_path):
    result = run(text, tmp_path, steps=200, valid_every=4, patience=2, lr=0.5, clip=None)
    valid = [line["loss"] for line in metrics.read(tmp_path) if line["split"] == "valid"]
    assert result.stopped == "patience"
    assert result.step < 200
    assert len(valid) >= 3
    assert result.valid_loss == min(valid) == min(valid[:-2])
    assert score(tmp_path, text) == pytest.approx(min(valid), rel=1e-6)


def test_a_budget_ends_the_run_and_is_carried_over_restarts(text, tmp_path):
    class Stop(Exception):
        pass

    def stop(report):
        if report.step == 5:
            raise Stop

    settings = {"steps": None, "budget": 0.5, "valid_every": None, "save_seconds": 0.0}
    with pytest.raises(Stop):
        run(text, tmp_path, stop, **settings)
    spent = checkpoint.load(tmp_path).facts["position"]["seconds"]
    reports = []
    result = run(text, tmp_path, reports.append, **settings)
    assert reports[0].step == 5
    assert reports[0].seconds > spent > 0
    assert result.stopped == "budget"
    assert result.seconds >= 0.5
    assert reports[-1].progress == 1.0


def test_bfloat16_leaves_weights_in_float32(text, tmp_path):
    result = run(text, tmp_path / "half", precision="bfloat16")
    run(text, tmp_path / "full")
    assert math.isfinite(result.valid_loss)
    assert {parameter.dtype for parameter in runnel.load(tmp_path / "half").parameters()} == {torch.float32}
    assert exported(tmp_path / "half") != exported(tmp_path / "full")


def test_clipping(text, tmp_path):
    model, reports = make_model(), []
    config = TrainConfig(**{**SETTINGS, "clip": 0.01, "steps": 2})
    fit(model, make_source(text), tmp_path, config, reports.append)
    norm = torch.stack([parameter.grad.norm() for parameter in model.parameters() if parameter.grad is not None]).norm()
    assert reports[-1].grad_norm > 0.1
    assert float(norm) == pytest.approx(0.01, rel=1e-3)


def test_metrics(text, tmp_path):
    run(text, tmp_path, log_every=2)
    lines = metrics.read(tmp_path)
    train = [line for line in lines if line["split"] == "train"]
    valid = [line for line in lines if line["split"] == "valid"]
    assert [line["step"] for line in train] == [2, 4, 6, 8, 10, 12]
    assert [line["step"] for line in valid] == [5, 10, 12]
    assert train[-1]["tokens"] == 12 * 4 * 24
    assert train[0]["bits_per_byte"] == train[0]["bits_per_token"] == train[0]["loss"] / math.log(2)
    assert {"lr", "grad_norm", "tokens_per_second", "seconds"} <= train[0].keys()


def poisoned(at_step):
    """A model whose gradient is NaN from the first mixer back, from a step on."""
    model, steps = make_model(), 0

    def spoil(gradient):
        nonlocal steps
        steps += 1
        return gradient * math.nan if steps == at_step else gradient

    def watch(module, args, output):
        if output[0].requires_grad:
            output[0].register_hook(spoil)

    model.layers[0].mixer.register_forward_hook(watch)
    return model


def test_nan_in_a_gradient_stops_with_its_origin_and_the_last_good_checkpoint(text, tmp_path):
    last = [name for name, _ in make_model().named_parameters() if name.startswith("layers.0.mixer.")][-1]
    with pytest.raises(Diverged, match=rf"^step 6 .*: the gradient of {last}\[0.*\] is nan; .* of step 5, is in"):
        fit(poisoned(at_step=6), make_source(text), tmp_path / "cut", TrainConfig(**SAVING))
    assert not (tmp_path / "cut" / "model.safetensors").exists()
    run(text, tmp_path / "whole")
    run(text, tmp_path / "cut")
    assert exported(tmp_path / "cut") == exported(tmp_path / "whole")


def test_nan_in_a_weight_is_never_saved(text, tmp_path):
    model, config = make_model(), TrainConfig(**SAVING)
    name, weight = list(model.named_parameters())[-1]

    def spoil(report):
        if report.step == 4:
            weight.data.view(-1)[1] = math.inf

    with pytest.raises(Diverged, match=rf"^after step 4 model/{name}\[.*\] is inf; .* of step 3, is in"):
        fit(model, make_source(text), tmp_path, config, spoil)
    assert checkpoint.load(tmp_path).step == 3
    assert all(tensor.isfinite().all() for tensor in checkpoint.load(tmp_path).tensors.values())


def test_nan_in_the_loss_names_the_weight(text, tmp_path):
    model, config = make_model(), TrainConfig(**{**SETTINGS, "valid_every": None})
    name, weight = list(model.named_parameters())[-1]

    def spoil(report):
        weight.data.view(-1)[1] = math.nan

    with pytest.raises(Diverged, match=rf"^step 2 must have a finite loss and gradient; got loss nan.*: {name}\["):
        fit(model, make_source(text), tmp_path, config, spoil)
    assert checkpoint.load(tmp_path).step == 0


def test_outside_the_main_thread(text, tmp_path):
    results = []
    thread = threading.Thread(target=lambda: results.append(run(text, tmp_path)))
    thread.start()
    thread.join()
    assert results[0].step == 12


def test_nothing_held_out(text, tmp_path):
    source = small_run.open_source(text, small_run.Bytes(), length=24, batch_size=4, valid_fraction=0.0)
    result = fit(make_model(), source, tmp_path / "a", TrainConfig(**SETTINGS))
    assert (result.valid_loss, result.valid_bits_per_byte) == (None, None)
    with pytest.raises(ValueError, match="patience=1 needs held-out batches; the source has none"):
        fit(make_model(), source, tmp_path / "b", TrainConfig(**SETTINGS, patience=1))


def test_tensorboard(text, tmp_path):
    pytest.importorskip("tensorboard", reason="TensorBoard is optional and not installed")
    run(text, tmp_path, tensorboard=True, steps=2)
    assert list((tmp_path / "tensorboard").glob("events.*"))


def test_tensorboard_missing(text, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorboard", None)  # as when it is not installed
    for name in [name for name in sys.modules if name.startswith("torch.utils.tensorboard")]:
        monkeypatch.delitem(sys.modules, name)
    with pytest.raises(ValueError, match="tensorboard=True needs the package tensorboard: pip install tensorboard"):
        run(text, tmp_path, tensorboard=True)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"steps": None}, "exactly one of steps and budget; got steps=None, budget=None"),
        ({"budget": 5.0}, "exactly one of steps and budget; got steps=12, budget=5.0"),
        ({"steps": 0}, "steps must be at least 1; got 0"),
        ({"lr": math.nan}, "lr must be a positive number; got nan"),
        ({"ema": 1.0}, r"ema must be in \[0, 1\); got 1.0"),
        ({"optimizer": "adam"}, "optimizer must be one of adamw, adamw8bit, muon; got 'adam'"),
        ({"patience": 2, "valid_every": None}, "patience counts validations"),
        ({"objective": "next_tok"}, "no objective is called 'next_tok'; did you mean 'next_token'?"),
    ],
)
def test_a_wrong_setting_is_one_clear_line(text, tmp_path, settings, message):
    with pytest.raises(ValueError, match=message) as caught:
        run(text, tmp_path, **settings)
    assert "\n" not in str(caught.value)


def test_a_vocabulary_too_large_for_the_model(text, tmp_path):
    model = runnel.build("mingru", vocab_size=100, d_model=16, n_layers=1, seed=0)
    with pytest.raises(ValueError, match="vocab_size must be at least the source's 256; got 100"):
        fit(model, make_source(text), tmp_path, TrainConfig(**SETTINGS))
