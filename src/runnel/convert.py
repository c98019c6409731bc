"""Attention models into recurrent ones: begin with the teacher's weights, teach the new layers, say what was lost.

    teacher = convert.read("folder").model                          # a run of Runnel, or a Hugging Face folder
    pupil = convert.begin(teacher, "gla", "1/4")                    # a quarter of the attention layers stays
    for stage in convert.stages(transfer_steps=100, steps=200):     # layer by layer, then end to end
        train.fit(pupil, source, "out" / stage.folder, stage.config)
    convert.Gap.of(teacher, source), convert.Gap.of(pupil, source)

The pupil is saved as an ordinary model in `out`. Progressive replacement, as in "The Mamba in the Llama", is the same
again with the result as the teacher.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import torch

from runnel import conversions, interop, model
from runnel.codecs.bytes import Bytes
from runnel.data import Source, open_source
from runnel.model import Model
from runnel.objectives import next_token
from runnel.storage import read_json, write_json
from runnel.train import TrainConfig
from runnel.trained import pupil
from runnel.trained.pupil import Pupil
from runnel.types import IGNORE

RECALL = "recall:pairs=4,vocab=64"
RECALL_LENGTH, RECALL_ROWS = 32, 64
RECORD = "conversion.json"


def read(folder: str | Path) -> interop.Run:
    """The model and codec of a run, or of a checkpoint in the Hugging Face layout."""
    path = interop.fetched(folder)
    config = read_json(path / "config.json")
    own = isinstance(config, dict) and config.get("format") == "runnel.model"
    found = model.load(path) if own else interop.load(path)
    return interop.Run(found.eval(), interop.read_codec(path, found))


def begin(teacher: Model, to: str, keep: str | Fraction, seed: int = 0) -> Pupil:
    """The teacher with attention layers converted. to: a page of `conversions/`, with options. keep: a share."""
    return pupil.begin(teacher, conversions.make(to), share(keep), seed)


def share(text: str | Fraction) -> Fraction:
    """A share such as 1/4 or 0.25."""
    try:
        return Fraction(text)
    except (ValueError, ZeroDivisionError):
        raise ValueError(f"keep must be a share such as 1/4 or 0.25; got {text!r}") from None


@dataclass(frozen=True)
class Stage:
    """folder: where in the result's folder it is kept."""

    title: str
    folder: str
    config: TrainConfig


def stages(transfer_steps: int, steps: int, **options: Any) -> Iterator[Stage]:
    """Layer by layer, then end to end; a stage of 0 steps is left out. options: of both `TrainConfig`s."""
    for title, folder, objective, count in (
        ("layer by layer", "transfer", "attention_transfer", transfer_steps),
        ("end to end", ".", "logits_kl", steps),
    ):
        if count:
            yield Stage(title, folder, TrainConfig(steps=count, objective=objective, weight_decay=0.0, **options))


def claim(folder: Path, teacher: Model, to: str, keep: str, seed: int) -> None:
    """Write what is converted into what. ValueError where the folder holds another conversion."""
    wanted = {"teacher": teacher.fingerprint(), "to": to, "keep": str(share(keep)), "seed": seed}
    path = folder / RECORD
    if path.is_file() and (held := read_json(path)) != wanted:
        raise ValueError(f"{folder} must be new or hold this very conversion; it holds {held}, this is {wanted}")
    write_json(path, wanted)


@dataclass(frozen=True)
class Gap:
    """bits: per token of held-out data. recall: share of right answers in associative recall, None where none is held.

    Recall is asked of the weights as they are: a model that never saw such rows is near chance before and after.
    """

    bits: float | None
    recall: float | None

    @property
    def perplexity(self) -> float | None:
        return None if self.bits is None else 2**self.bits

    @classmethod
    def of(cls, found: Model, source: Source | None, recall: str = RECALL) -> Gap:
        asked = open_source(recall, Bytes(), RECALL_LENGTH, RECALL_ROWS)
        fits = asked.vocab_size <= (found.config.vocab_size or 0)
        return cls(None if source is None else bits(found, source), recalled(found, asked) if fits else None)


@torch.no_grad()
def bits(found: Model, source: Source) -> float | None:
    """Mean bits per held-out token; None where nothing is held out."""
    nats, count = 0.0, 0
    for batch in source.valid():
        nats += float(next_token.loss(found, batch)) * batch.n_targets
        count += batch.n_targets
    return nats / count / math.log(2) if count else None


@torch.no_grad()
def recalled(found: Model, source: Source) -> float:
    """The share of asked places where the likeliest token is the right one."""
    right, count = 0, 0
    for batch in source.valid():
        asked = batch.targets != IGNORE
        logits, _ = found(batch.inputs)
        right += int((logits.argmax(-1) == batch.targets)[asked].sum())
        count += batch.n_targets
    return right / count
