"""Runnel: autoregressive sequence models of any architecture, whose state is a plain value."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from runnel.catalog import methods
    from runnel.generation import Generation, Scores, generate, score
    from runnel.lineage import Lineage
    from runnel.model import Model, ModelConfig, build, load, save
    from runnel.packing import PackedModel, load_packed, pack, save_packed
    from runnel.state import State
    from runnel.tree import DraftTree, Verification
    from runnel.types import IGNORE, Batch

__version__ = "0.1.0"
__all__ = [
    "IGNORE",
    "Batch",
    "DraftTree",
    "Generation",
    "Lineage",
    "Model",
    "ModelConfig",
    "PackedModel",
    "Scores",
    "State",
    "Verification",
    "build",
    "generate",
    "load",
    "load_packed",
    "methods",
    "pack",
    "save",
    "save_packed",
    "score",
]
_HOMES = {
    "catalog": ("methods",),
    "generation": ("Generation", "Scores", "generate", "score"),
    "lineage": ("Lineage",),
    "model": ("Model", "ModelConfig", "build", "load", "save"),
    "packing": ("PackedModel", "load_packed", "pack", "save_packed"),
    "state": ("State",),
    "tree": ("DraftTree", "Verification"),
    "types": ("IGNORE", "Batch"),
}


def __getattr__(name: str) -> Any:
    """Import what is asked for when it is asked for: `runnel --help` need not wait seconds for PyTorch."""
    for module, names in _HOMES.items():
        if name in names:
            return getattr(import_module(f"runnel.{module}"), name)
    raise AttributeError(f"module 'runnel' has no attribute {name!r}")
