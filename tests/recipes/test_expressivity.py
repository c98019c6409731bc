"""The recipe runs and keeps what it has done; and, in the thorough tests, its claim for one seed."""

import importlib.util
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import runnel
from runnel.codecs.bytes import Bytes
from runnel.data import open_source

PATH = Path(__file__).resolve().parents[2] / "recipes" / "expressivity.py"


@pytest.fixture(scope="module")
def recipe():
    spec = importlib.util.spec_from_file_location("expressivity", PATH)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    yield module
    del sys.modules[spec.name]


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def tiny(recipe, entry):
    """The entry with short rows, few of them, and two steps."""
    task = replace(entry.task, length=16, batch_size=4)
    return replace(entry, task=task, steps=2)


def record(entry, decisive):
    """A record of a run whose accuracy at the decisive length is given."""
    scores = {"1": 0.9, "2": 0.8, "4": 0.7, str(entry.task.decisive): decisive}
    size = {"parameters": 1234567, "state_bytes": 2048, "length": 40, "seconds": 12.3}
    return {**size, "accuracy": scores, "along": [0.5] * 16}


def test_every_entry_runs_and_is_not_run_again(recipe, tmp_path, monkeypatch, capsys):
    runs = [recipe.Run(tiny(recipe, entry), seed=0) for entry in recipe.ENTRIES]
    first = [found for _, found in recipe.perform_all(runs, tmp_path)]
    assert len({run.name() for run in runs}) == len(runs)
    for found in first:
        assert found["accuracy"].keys() == {"1", "2", "4"} and len(found["along"]) == recipe.BINS
        assert all(0 <= score <= 1 for score in found["accuracy"].values())
        assert all(score is None or 0 <= score <= 1 for score in found["along"])
    with (tmp_path / "runs.jsonl").open("a") as file:
        file.write('{"cut": sho')  # killed while writing
    monkeypatch.setattr(recipe, "perform", lambda *_: pytest.fail("a finished run was made again"))
    assert [found for _, found in recipe.perform_all(runs, tmp_path)] == first
    assert "[8/8]" in capsys.readouterr().out


def test_other_settings_are_another_run(recipe):
    run = recipe.Run(recipe.ENTRIES[0], 0)
    for other in (run._replace(seed=1), run._replace(entry=replace(run.entry, steps=7))):
        assert not other.key().items() <= run.key().items()


def test_the_control_of_recall_has_no_smaller_state(recipe):
    sizes = {}
    for entry in recipe.ENTRIES:
        if entry.task is recipe.RECALL:
            model = runnel.build(entry.pattern, vocab_size=64, d_model=entry.task.d_model)
            sizes[entry.pattern.partition("(")[0]] = recipe.state_bytes(model, entry.task.length)
    assert sizes["mingru"] >= sizes["gated_deltanet"]


@torch.no_grad()
def test_accuracy_counts_targets_only(recipe):
    """With all logits equal the first token wins: right where the parity is 0, and not judged where none is asked."""
    model = runnel.build("mingru", vocab_size=2, d_model=8)
    model.head.logits.weight.zero_()
    source = open_source("parity:targets=last", Bytes(), length=5, batch_size=4)
    found = recipe.correct(model, source)
    targets = torch.cat([batch.targets for batch in source.valid()])
    assert found[:, :-1].isnan().all()
    assert torch.equal(found[:, -1], (targets[:, -1] == 0).double())


@pytest.mark.parametrize("solves, decisive, expected", [(True, 0.99, "yes"), (True, 0.98, "**no**")])
def test_one_seed_below_the_threshold_is_shown_as_not_met(recipe, solves, decisive, expected):
    entry = next(entry for entry in recipe.ENTRIES if entry.solves is solves)
    text = recipe.table([(entry, [record(entry, 1.0), record(entry, decisive)])])
    row = text.splitlines()[-1]
    assert row.endswith(f"| solves | {expected} |")
    assert f"1.000 / {decisive:.3f}" in row and "1,234,567" in row and "2,048" in row


@pytest.mark.parametrize("above, expected", [(0.0, "yes"), (0.01, "**no**")])
def test_a_control_that_learns_is_shown_as_not_met(recipe, above, expected):
    entry = next(entry for entry in recipe.ENTRIES if not entry.solves)
    found = [record(entry, 0.1), record(entry, entry.task.failed + above)]
    assert recipe.table([(entry, found)]).splitlines()[-1].endswith(f"| fails | {expected} |")


def test_page_and_figure(recipe, tmp_path):
    results = [(entry, [record(entry, 0.5)] * 3) for entry in recipe.ENTRIES]
    recall, parity = (recipe.of_task(task, results) for task in (recipe.RECALL, recipe.PARITY))
    text = recipe.page(recall, parity)
    assert all(f"`{entry.pattern}`" in text for entry in recipe.ENTRIES)
    assert text.index("Decided before the recorded runs") < text.index("| model |")
    recipe.draw(parity, tmp_path / "figure.png")
    assert (tmp_path / "figure.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.thorough
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("task", ["recall", "parity"])
def test_the_claim_for_one_seed(recipe, tmp_path, task):
    entries = [entry for entry in recipe.ENTRIES if entry.task.name == task]
    runs = [recipe.Run(entry, recipe.SEEDS[0]) for entry in entries]
    found = list(recipe.perform_all(runs, tmp_path))
    missed = {run.entry.pattern: made["accuracy"] for run, made in found if not recipe.met(run.entry, [made])}
    assert not missed
