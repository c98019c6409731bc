"""Learner: what can be trained, and how each is saved."""

from __future__ import annotations

from pathlib import Path

from runnel import model as models
from runnel import trained

Learner = models.Model | trained.TrainedDrafter
"""A module with a `config` that names it, a `device` and `parameter_groups`; an objective is written for it."""


def save_learner(learner: Learner, folder: Path) -> None:
    """Write what `runnel.load` or `runnel.drafters.load` reads. OSError when the disk is full."""
    if isinstance(learner, models.Model):
        models.save(learner, folder)
    else:
        trained.save(learner, folder)
