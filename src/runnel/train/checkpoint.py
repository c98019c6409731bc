"""Checkpoints: complete, atomic, checked when read. Safetensors and JSON; nothing is unpickled.

    FOLDER/checkpoints/step-000001200/tensors.safetensors    weights, averages, optimiser state, generator state
                                      checkpoint.json        everything else, and length and SHA-256 of the tensors
                       step-000001100/                       the one before; older ones are deleted
                       latest                                the name of the newest, replaced atomically

A checkpoint is written under a temporary name, flushed to disk and renamed, so at any moment the folder holds the old
checkpoint or the new one and never half of one. `find` verifies lengths and sums, and goes back to the checkpoint
before when the newest is damaged. In place of one file of tensors there may be several (`parts.py`): PyTorch's
distributed checkpoint reads both, each rank what it holds of them.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sys
import warnings
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageReader
from torch.distributed.checkpoint.metadata import TensorStorageMetadata
from torch.distributed.checkpoint.state_dict_loader import load as load_into
from torch.distributed.tensor import DTensor

from runnel.storage import read_json, write_atomically, write_json, write_tensors

FORMAT = "runnel checkpoint 2"
TENSORS = "tensors.safetensors"
FACTS = "checkpoint.json"


@dataclass(frozen=True)
class Checkpoint:
    """What a run needs to go on: tensors by name, and JSON-able facts."""

    step: int
    tensors: dict[str, Tensor]
    facts: dict[str, Any]


@dataclass(frozen=True)
class Found:
    """A checkpoint on disk, whole and undamaged."""

    path: Path
    step: int
    facts: dict[str, Any]


def save(folder: Path, checkpoint: Checkpoint, previous: int | None) -> None:
    """Write a checkpoint into FOLDER/checkpoints and delete all others but that of step `previous` (None: none).

    OSError in one line when the disk is full or refuses; what was there before is then intact.
    """
    try:
        empty = begin(folder, checkpoint.step)
        write_tensors(empty / TENSORS, checkpoint.tensors, {"format": FORMAT})
        complete(empty, [TENSORS], checkpoint.step, checkpoint.facts, previous)
    except OSError as error:
        raise failed(folder, checkpoint.step, error.strerror or str(error)) from error


def begin(folder: Path, step: int) -> Path:
    """An empty folder to write the files of a checkpoint to."""
    _sweep(folder / "checkpoints")
    empty = temporary(folder, step)
    empty.mkdir(parents=True, exist_ok=True)
    return empty


def temporary(folder: Path, step: int) -> Path:
    """Where the files of a checkpoint are until it is complete."""
    return folder / "checkpoints" / f".tmp-{_name(step)}"


def complete(written: Path, parts: Iterable[str], step: int, facts: Mapping[str, Any], previous: int | None) -> None:
    """Make the checkpoint of a folder of files that are on disk: from here on it is there."""
    root = written.parent
    _write_facts(written, parts, step, facts)
    _move(written, root / _name(step))
    write_atomically(root / "latest", lambda path: _write_line(path, _name(step)))
    if previous is not None:
        _prune(root, {_name(step), _name(previous)})


def failed(folder: Path, step: int, what: str) -> OSError:
    """What to say of a checkpoint that could not be saved; what there is of it is deleted."""
    _sweep(folder / "checkpoints")
    where = f"the checkpoint of step {step} could not be saved in {folder / 'checkpoints'}"
    return OSError(f"{where} ({what}); what was saved before is intact")


def find(folder: Path) -> Found | None:
    """The newest good checkpoint of FOLDER/checkpoints, or None when there is none at all.

    A damaged one is passed over with a warning on standard error. ValueError, naming the file, when all are damaged.
    """
    first: ValueError | None = None
    for path in _newest_first(folder / "checkpoints"):
        try:
            found = _verified(path)
        except ValueError as error:
            first = first or error
            continue
        if first is not None:
            print(f"warning: {first}; going on from {path.name}", file=sys.stderr)
        return found
    if first is not None:
        raise ValueError(f"{first}; no older checkpoint is good")
    return None


def read(path: Path, model: nn.Module | None = None) -> dict[str, Tensor]:
    """The tensors of a checkpoint: of what the model keeps sharded, and of its averages and moments, this rank's share.

    No rank waits for another.
    """
    warnings.filterwarnings("ignore", message="torch.distributed is disabled")
    reader = HuggingFaceStorageReader(str(path))
    held = reader.read_metadata().state_dict_metadata
    patterns = dict(model.named_parameters()) if model is not None else {}
    tensors = {
        name: _empty(facts.size, facts.properties.dtype, _of(name, patterns))
        for name, facts in held.items()
        if isinstance(facts, TensorStorageMetadata)
    }
    load_into(tensors, storage_reader=reader, no_dist=True)
    return tensors


def load(folder: Path) -> Checkpoint | None:
    """The newest good checkpoint with all its tensors."""
    found = find(folder)
    return None if found is None else Checkpoint(found.step, read(found.path), found.facts)


def _of(name: str, patterns: Mapping[str, Tensor]) -> Tensor | None:
    """The parameter that a tensor belongs to: model/NAME, average/NAME, optimizer/NAME/BUFFER."""
    kind, _, own = name.partition("/")
    return patterns.get(own.rpartition("/")[0] if kind == "optimizer" else own)


def _empty(size: torch.Size, dtype: torch.dtype, pattern: Tensor | None) -> Tensor:
    if isinstance(pattern, DTensor) and pattern.shape == size:
        return torch.empty_like(pattern, dtype=dtype)
    return torch.empty(size, dtype=dtype)


def _name(step: int) -> str:
    return f"step-{step:09d}"


def _newest_first(root: Path) -> list[Path]:
    """The checkpoint that `latest` names, then the others from new to old."""
    paths = sorted((path for path in root.glob("step-*") if path.is_dir()), reverse=True)
    latest = root / "latest"
    name = latest.read_text(encoding="utf-8", errors="replace").strip() if latest.is_file() else ""
    return sorted(paths, key=lambda path: path.name != name)


def _write_facts(folder: Path, parts: Iterable[str], step: int, facts: Mapping[str, Any]) -> None:
    sums = {name: {"bytes": (folder / name).stat().st_size, "sha256": _sha256_of_file(folder / name)} for name in parts}
    content = {"format": FORMAT, "step": step, "parts": sums, "facts": facts}
    write_json(folder / FACTS, {**content, "sha256_of_this": _sha256_of_json(content)})


def _verified(folder: Path) -> Found:
    content = _read_facts(folder / FACTS)
    for name, wanted in content["parts"].items():
        part = folder / name
        if not part.is_file():
            raise ValueError(f"{part} is missing")
        if part.stat().st_size != wanted["bytes"]:
            raise ValueError(f"{part} is truncated: must have {wanted['bytes']} bytes; got {part.stat().st_size}")
        if _sha256_of_file(part) != wanted["sha256"]:
            raise ValueError(f"{part} is damaged: its SHA-256 is not the one in {FACTS}")
    return Found(folder, content["step"], content["facts"])


def _read_facts(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise ValueError(f"{path} is missing")
    content = read_json(path)
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        found = content.get("format") if isinstance(content, dict) else type(content).__name__
        raise ValueError(f"{path} is not a Runnel checkpoint: its format must be {FORMAT!r}; got {found!r}")
    if content.pop("sha256_of_this", None) != _sha256_of_json(content):
        raise ValueError(f"{path} is damaged: its SHA-256 is not the one written in it")
    return content


def _sha256_of_file(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _sha256_of_json(content: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _move(temporary: Path, final: Path) -> None:
    """Rename; a damaged checkpoint of the same step, left by an earlier run, is moved out of the way first."""
    if final.exists():
        final.rename(final.with_name(f".tmp-old-{final.name}"))
    temporary.rename(final)
    _flush_folder(final.parent)


def _prune(root: Path, kept: set[str]) -> None:
    for path in root.glob("step-*"):
        if path.name not in kept:
            shutil.rmtree(path, ignore_errors=True)
    _sweep(root)


def _sweep(root: Path) -> None:
    """Delete what a killed process left behind."""
    for path in root.glob(".tmp-*"):
        shutil.rmtree(path, ignore_errors=True)


def _write_line(path: Path, line: str) -> None:
    path.write_text(line + "\n", encoding="utf-8")


def _flush_folder(folder: Path) -> None:
    """Make renames in a folder survive a power cut."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
