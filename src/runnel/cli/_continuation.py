"""A state on disk together with the newest token, which the model has not read yet: all that going on takes.

The file is one of `State.save`, so `runnel.State.load` reads it too; the token stands in its metadata.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from runnel.model import Model
    from runnel.state import State

KEY = "newest"


def save(path: Path, state: State, newest: int) -> None:
    """Write the state of one row, and the token after it. OSError when the disk is full; an old file then stays."""
    state.save(path, {KEY: json.dumps(newest)})


def load(path: Path, model: Model) -> tuple[State, list[int]]:
    """The state, and the newest token, or no token when the file was written by `State.save` alone.

    ValueError when the file is damaged, belongs to another model, or holds several rows.
    """
    from runnel.state import State
    from runnel.storage import read_tensors

    state = State.load(path, model)
    if state.batch_size != 1:
        raise ValueError(f"{path} must hold the state of one text; it holds {state.batch_size}")
    newest = read_tensors(path)[1].get(KEY)
    return state, [] if newest is None else [int(newest)]
