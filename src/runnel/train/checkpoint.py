"""Checkpoints: complete, atomic, checked when read. Safetensors and JSON; nothing is unpickled.

    FOLDER/checkpoints/step-000001200/tensors.safetensors    weights, averages, optimiser state, generator state
                                      checkpoint.json        everything else, and length and SHA-256 of the tensors
                       step-000001100/                       the one before; older ones are deleted
                       latest                                the name of the newest, replaced atomically

A checkpoint is written under a temporary name, flushed to disk and renamed, so at any moment the folder holds the old
checkpoint or the new one and never half of one. `load` verifies lengths and sums, and goes back to the checkpoint
before when the newest is damaged.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from runnel.storage import read_json, read_tensors, write_atomically, write_json, write_tensors

FORMAT = "runnel checkpoint 1"
TENSORS = "tensors.safetensors"
FACTS = "checkpoint.json"


@dataclass(frozen=True)
class Checkpoint:
    """What a run needs to go on: tensors by name, and JSON-able facts."""

    step: int
    tensors: dict[str, Tensor]
    facts: dict[str, Any]


def save(folder: Path, checkpoint: Checkpoint, previous: int | None) -> None:
    """Write a checkpoint into FOLDER/checkpoints and delete all others but that of step `previous` (None: none).

    OSError in one line when the disk is full or refuses; what was there before is then intact.
    """
    root = folder / "checkpoints"
    temporary = root / f".tmp-{_name(checkpoint.step)}"
    try:
        _sweep(root)
        temporary.mkdir(parents=True)
        _write(temporary, checkpoint)
        _move(temporary, root / _name(checkpoint.step))
        write_atomically(root / "latest", lambda path: _write_line(path, _name(checkpoint.step)))
    except OSError as error:
        _sweep(root)
        raise OSError(
            f"the checkpoint of step {checkpoint.step} could not be saved in {root} ({error.strerror or error}); "
            "what was saved before is intact"
        ) from error
    if previous is not None:
        _prune(root, {_name(checkpoint.step), _name(previous)})


def load(folder: Path) -> Checkpoint | None:
    """The newest good checkpoint of FOLDER/checkpoints, or None when there is none at all.

    A damaged one is passed over with a warning on standard error. ValueError, naming the file, when all are damaged.
    """
    first: ValueError | None = None
    for path in _newest_first(folder / "checkpoints"):
        try:
            checkpoint = _read(path)
        except ValueError as error:
            first = first or error
            continue
        if first is not None:
            print(f"warning: {first}; going on from {path.name}", file=sys.stderr)
        return checkpoint
    if first is not None:
        raise ValueError(f"{first}; no older checkpoint is good")
    return None


def _name(step: int) -> str:
    return f"step-{step:09d}"


def _newest_first(root: Path) -> list[Path]:
    """The checkpoint that `latest` names, then the others from new to old."""
    paths = sorted((path for path in root.glob("step-*") if path.is_dir()), reverse=True)
    latest = root / "latest"
    name = latest.read_text(encoding="utf-8", errors="replace").strip() if latest.is_file() else ""
    return sorted(paths, key=lambda path: path.name != name)


def _write(folder: Path, checkpoint: Checkpoint) -> None:
    tensors = folder / TENSORS
    write_tensors(tensors, checkpoint.tensors, {"format": FORMAT})
    content = {
        "format": FORMAT,
        "step": checkpoint.step,
        "bytes": tensors.stat().st_size,
        "sha256": _sha256_of_file(tensors),
        "facts": checkpoint.facts,
    }
    write_json(folder / FACTS, {**content, "sha256_of_this": _sha256_of_json(content)})


def _read(folder: Path) -> Checkpoint:
    content = _read_facts(folder / FACTS)
    tensors = folder / TENSORS
    if not tensors.is_file():
        raise ValueError(f"{tensors} is missing")
    if tensors.stat().st_size != content["bytes"]:
        raise ValueError(f"{tensors} is truncated: must have {content['bytes']} bytes; got {tensors.stat().st_size}")
    if _sha256_of_file(tensors) != content["sha256"]:
        raise ValueError(f"{tensors} is damaged: its SHA-256 is not the one in {FACTS}")
    return Checkpoint(content["step"], read_tensors(tensors)[0], content["facts"])


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
