"""Runnel: autoregressive sequence models of any architecture, whose state is a plain value."""

from runnel.catalog import methods
from runnel.generation import Generation, generate
from runnel.lineage import Lineage
from runnel.model import Model, ModelConfig, build, load, save
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
    "State",
    "Verification",
    "build",
    "generate",
    "load",
    "methods",
    "save",
]
