"""Is this the run that the folder holds?"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from runnel import catalog
from runnel.data import Source
from runnel.train.config import TrainConfig
from runnel.train.learner import Learner

FREE = ("save_seconds", "log_every", "tensorboard", "chunk", "recompute", "shard", "offload", "checkpoints")
"""Settings that change no weight (but for rounding), and so may change over a restart."""


def describe_run(model: Learner, source: Source, config: TrainConfig) -> dict[str, Any]:
    """JSON-able: everything that decides the weights of a run, apart from the first ones."""
    settings = {name: value for name, value in asdict(config).items() if name not in FREE}
    run = {"model": model.config.to_dict(), "data": _describe_data(source), "train": settings}
    described: dict[str, Any] = json.loads(json.dumps(run))  # as a checkpoint gives it back: tuples are lists
    return described


def describe_code() -> str:
    """A digest of the package's source and of PyTorch's version: what ranks must share."""
    digest = hashlib.sha256(torch.__version__.encode())
    for path in sorted(catalog.ROOT.rglob("*.py")):
        digest.update(str(path.relative_to(catalog.ROOT)).encode() + path.read_bytes())
    return digest.hexdigest()[:16]


def check_same_run(held: Mapping[str, Any], wanted: Mapping[str, Any], folder: Path) -> None:
    """ValueError naming every difference when the folder holds another run."""
    found = [f"{name} is {old} there, {new} here" for name, old, new in _differences(held, wanted, "")]
    if found:
        raise ValueError(f"{folder} must be new or hold this very run; it holds another: {'; '.join(found)}")


def _describe_data(source: Source) -> dict[str, Any]:
    """The facts of a source, and its first batch, which stands for the seed and all else that they leave out."""
    first = source.batch(0)
    digest = hashlib.sha256(first.inputs.numpy().tobytes() + first.targets.numpy().tobytes()).hexdigest()[:16]
    facts = {name: value for name, value in source.facts.items() if name != "source"}  # a path may be spelled anew
    return {"vocab_size": source.vocab_size, "batch_shape": list(first.inputs.shape), "first_batch": digest, **facts}


def _differences(old: Any, new: Any, name: str) -> Iterator[tuple[str, str, str]]:
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        for key in dict.fromkeys([*old, *new]):
            yield from _differences(old.get(key), new.get(key), f"{name}.{key}" if name else key)
    elif old != new:
        yield name, json.dumps(old), json.dumps(new)
