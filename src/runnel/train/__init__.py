"""Training: `fit` a model to a source in a folder, safely and repeatably."""

from runnel.train.config import TrainConfig
from runnel.train.guard import Diverged, Interrupted
from runnel.train.loop import fit
from runnel.train.ranks import Mesh, RankFailed, Ranks, opened
from runnel.train.records import StepReport, TrainResult

__all__ = [
    "Diverged",
    "Interrupted",
    "Mesh",
    "RankFailed",
    "Ranks",
    "StepReport",
    "TrainConfig",
    "TrainResult",
    "fit",
    "opened",
]
