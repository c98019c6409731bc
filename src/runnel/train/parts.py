"""Checkpoints in parts: every rank writes its share of the tensors while the run goes on.

    FOLDER/checkpoints/step-000001200/shard-00001-....safetensors    what rank 0 holds
                                      shard-00002-....safetensors    what rank 1 holds
                                      checkpoint.json                as of a whole one, with the sum of every part

PyTorch's distributed checkpoint copies the tensors, shares what all ranks hold among them, and writes in a thread. When
all parts are on disk, rank 0 sums them and renames the folder: before that the checkpoint is not there, and parts that
a killed run left behind are in a folder of another name. Until it is there a run that is killed goes on from the one
before. A save waits for the one before it, so there is at most one on its way.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from concurrent.futures import Future
from pathlib import Path
from typing import Any, cast

import torch.distributed as dist
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageWriter
from torch.distributed.checkpoint.state_dict_saver import async_save

from runnel.train import checkpoint
from runnel.train.checkpoint import Checkpoint


class Parts:
    """The checkpoints of a run, as one of its ranks sees them. group: the ranks, for their threads; None: one."""

    def __init__(self, folder: Path, group: dist.ProcessGroup | None) -> None:
        self.folder, self.group = folder, group
        self.is_first = group is None or dist.get_rank(group) == 0
        self.writing: tuple[int, Future[Any]] | None = None

    def save(self, held: Checkpoint, previous: int | None) -> None:
        """Begin to write what a rank holds; all ranks must. OSError when the checkpoint before could not be written."""
        self.settle()
        if not self.is_first:  # what was drawn on rank 0 counts for all, as in a whole checkpoint
            held = Checkpoint(held.step, _without(held.tensors, "generator/"), held.facts)
        warnings.filterwarnings("ignore", message="torch.distributed is disabled")
        writer = _Writer(self.folder, held, previous, self.is_first)
        # parameters that FSDP2 has cut cannot be copied as parameters
        tensors = {name: tensor.detach() for name, tensor in held.tensors.items()}
        future = async_save(tensors, storage_writer=writer, process_group=self.group)
        self.writing = held.step, cast("Future[Any]", future)

    def settle(self) -> None:
        """Until what was begun is on disk. OSError, on all ranks, when one of them could not write its part."""
        if self.writing is None:
            return
        (step, future), self.writing = self.writing, None
        try:
            future.result()
        except CheckpointException as error:
            rank, (cause, _) = next(iter(error.failures.items()))
            if not isinstance(cause, OSError):
                raise
            raise checkpoint.failed(self.folder, step, f"rank {rank}: {cause.strerror or cause}") from error


class _Writer(HuggingFaceStorageWriter):
    """Safetensors, a file a rank, which become a checkpoint when all of them are on disk."""

    def __init__(self, folder: Path, held: Checkpoint, previous: int | None, is_first: bool) -> None:
        name = checkpoint.begin(folder, held.step) if is_first else checkpoint.temporary(folder, held.step)
        super().__init__(str(name), save_distributed=True)
        self.folder, self.step, self.facts, self.previous = name, held.step, held.facts, previous

    def finish(self, metadata: Any, results: list[list[Any]]) -> None:
        """On rank 0, when all ranks have written."""
        names = {str(result.storage_data.relative_path) for written in results for result in written}
        checkpoint.complete(self.folder, sorted(names), self.step, self.facts, self.previous)


def _without(tensors: Mapping[str, Any], prefix: str) -> dict[str, Any]:
    return {name: tensor for name, tensor in tensors.items() if not name.startswith(prefix)}
