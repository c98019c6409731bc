"""Specs: paths, names and options, and what is said when one is mistyped."""

from __future__ import annotations

import dataclasses
import importlib
import json
from pathlib import Path
from typing import Any

import pytest

from runnel import catalog, data
from runnel.codecs.bytes import Bytes

GENERATORS = [name for name in catalog.names("data") if name != "text"]


def open_source(spec: str, **options: Any) -> data.Source:
    return data.open_source(spec, Bytes(), **({"length": 64, "batch_size": 4} | options))


def test_names_are_the_files_of_the_folder() -> None:
    assert {"ar", "markov", "parity", "recall", "text"} < set(catalog.names("data"))
    assert not any(name.startswith("_") for name in catalog.names("data"))


@pytest.mark.parametrize("name", GENERATORS)
def test_a_batch_is_a_pure_function_of_seed_and_index(name: str) -> None:
    source, again = open_source(name, seed=3), open_source(name, seed=3)
    later = source.batch(7)
    for index in (0, 7):
        assert source.batch(index).inputs.equal(again.batch(index).inputs)
        assert source.batch(index).targets.equal(again.batch(index).targets)
    assert not source.batch(0).inputs.equal(later.inputs)
    assert not open_source(name, seed=4).batch(7).inputs.equal(later.inputs)


@pytest.mark.parametrize("name", GENERATORS)
def test_held_out_batches_are_fixed_and_are_not_training_batches(name: str) -> None:
    source = open_source(f"{name}:valid_batches=3")
    first, second = list(source.valid()), list(source.valid())
    assert len(first) == 3
    assert all(a.inputs.equal(b.inputs) for a, b in zip(first, second, strict=True))
    assert not any(v.inputs.equal(source.batch(n).inputs) for n, v in enumerate(first))


@pytest.mark.parametrize("name", GENERATORS)
def test_facts_are_json_and_tell_the_optimum(name: str) -> None:
    facts = json.loads(json.dumps(open_source(name).facts))
    assert facts["optimal_nats"] < facts["chance_nats"]


@pytest.mark.parametrize("name", GENERATORS)
def test_pages_have_a_frozen_config_and_shapes_fit(name: str) -> None:
    page: Any = importlib.import_module(f"runnel.data.{name}")
    assert all(field.default is not dataclasses.MISSING for field in dataclasses.fields(page.Config))
    with pytest.raises(dataclasses.FrozenInstanceError):
        page.Config().valid_batches = 1
    batch = open_source(name, length=40, batch_size=3).batch(0)
    assert batch.inputs.shape[:2] == batch.targets.shape[:2] == (3, 40)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("recal", "there is no 'recal'; did you mean 'recall'\\?"),
        ("qqqqqq", "there are: ar, copying, "),
        ("text", "there is no 'text'"),
        ("recall:pair=3", "got 'pair=3'; did you mean 'pairs'\\?"),
        ("recall:pairs", "must be key=value; got 'pairs'"),
        ("recall:pairs=many", "pairs must be int; got 'many'"),
        ("recall:pairs=0", "1 <= pairs <= vocab / 2; got pairs=0, vocab=64"),
        ("recall:pairs=33", "got pairs=33, vocab=64"),
        ("recall:pairs=17", "pairs=17 needs length >= 68; got 64"),
        ("recall:power=nan", "power must be in"),
        ("markov:vocab=100,order=2", "vocab\\*\\*order <= 1024; got vocab=100, order=2"),
        ("markov:concentration=nan", "concentration must be in"),
        ("copying:symbols=1", "symbols must be at least 2; got 1"),
        ("delayed_copy:items=33", "needs length >= 66; got 64"),
        ("dyck:kinds=1", "kinds >= 2 and depth >= 1; got kinds=1, depth=8"),
        ("in_context_regression:dims=0", "dims must be in \\[1, 64\\]; got 0"),
        ("in_context_regression:noise=nan", "noise must be positive and finite"),
        ("key_overwriting:keys=22", "needs length >= 66; got 64"),
        ("modular_counting:modulus=1", "modulus must be at least 2; got 1"),
        ("needle:needles=17", "1 <= needles <= keys and values"),
        ("piecewise_stationary:hazard=0", "hazard must be in \\(0, 1\\); got 0.0"),
        ("regular_language:maps=some", "permutations or any; got some"),
        ("selective_copy:items=0", "items >= 1 and symbols >= 2; got items=0"),
        ("sorting:symbols=1", "symbols must be at least 2; got 1"),
        ("parity:targets=some", "every or last; got some"),
        ("ar:noise=nan", "noise must be positive and finite; got nan"),
        ("ar:noise=inf", "noise must be positive and finite; got inf"),
        ("ar:strength=1", "strength must be in \\[0, 1\\); got 1.0"),
        ("ar:strength=nan", "strength must be in"),
        ("ar:order=0", "order must be in"),
    ],
)
def test_mistakes_are_one_clear_line(spec: str, message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        open_source(spec)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ({"length": 0}, "length must be at least 1; got 0"),
        ({"batch_size": 0}, "batch_size must be at least 1; got 0"),
        ({"seed": -1}, "seed must be at least 0; got -1"),
    ],
)
def test_bad_numbers_are_refused(option: dict[str, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        open_source("parity", **option)
    with pytest.raises(ValueError, match="index -1"):
        open_source("parity").batch(-1)


def test_options_of_a_path(tmp_path: Path) -> None:
    (tmp_path / "t").write_text("x" * 100)
    with pytest.raises(ValueError, match="binary must be true or false; got 'yes'"):
        open_source(f"{tmp_path}:binary=yes")
    with pytest.raises(ValueError, match="did you mean 'suffix'"):
        open_source(f"{tmp_path}:sufix=.py")


def test_a_tokenizer_is_not_trained_on_a_generator() -> None:
    with pytest.raises(ValueError, match="a tokenizer is trained on a file, a folder or -; got recall"):
        data.training_text("recall")
