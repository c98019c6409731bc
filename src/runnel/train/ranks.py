"""Ranks: the processes of one run, as a mesh of data x sequence; one process is the mesh 1 x 1.

PyTorch starts them (torchrun) and carries what they say (torch.distributed). Rank (d, s) of the mesh reads the d-th
share of the rows of every batch and the s-th slice of their columns. All ranks hold the whole batch's numbers of
targets, so that the sum of their gradients is the gradient of one process; the mesh changes nothing but rounding.

A rank that fails leaves a line with the others before it goes: rank 0 says it, and all of them end.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, fields, replace
from datetime import timedelta
from types import FrameType
from typing import Any, TypeVar, cast

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed import distributed_c10d as c10d
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.rendezvous import rendezvous
from torch.nn.functional import pad

from runnel import catalog
from runnel.lineage import Exchange, Lineage
from runnel.train.sharding import is_sharded
from runnel.types import IGNORE, Batch

Found = TypeVar("Found")


class RankFailed(Exception):
    """Another rank failed, not by a mistake in what was asked; or ended without a word."""


@dataclass(frozen=True)
class Mesh:
    """How many ranks share the rows of a batch (data) and the columns of a row (sequence)."""

    data: int = 1
    sequence: int = 1

    def __post_init__(self) -> None:
        for axis in fields(self):
            if getattr(self, axis.name) < 1:
                raise ValueError(f"the mesh needs {axis.name} >= 1; got {getattr(self, axis.name)}")

    @property
    def size(self) -> int:
        return self.data * self.sequence

    def __str__(self) -> str:
        return f"data={self.data},sequence={self.sequence}"

    @staticmethod
    def parse(text: str) -> Mesh:
        """`data=2,sequence=4`; an axis that is left out is 1."""
        axes = {axis.name for axis in fields(Mesh)}
        sizes = {}
        for part in text.split(","):
            name, _, size = part.partition("=")
            if name not in axes or name in sizes or not size.isdecimal():
                raise ValueError(f"a mesh must be like data=2,sequence=4; got {text!r}")
            sizes[name] = int(size)
        return Mesh(**sizes)


@dataclass(frozen=True)
class Share:
    """What one rank reads of a batch, and how many of its targets count (those of a rank without rows do not)."""

    batch: Batch
    n_targets: int


@dataclass(frozen=True)
class Ranks:
    """One process's place among those of a run. Made by `opened`; `Ranks()` is a process on its own."""

    mesh: Mesh = Mesh()
    index: int = 0
    devices: DeviceMesh | None = None
    exchange: Exchange | None = None

    @property
    def is_first(self) -> bool:
        return self.index == 0

    # ---- what a rank reads --------------------------------------------------------------------------------------

    def own(self, batch: Batch) -> Share:
        """What of a batch is this rank's."""
        count, place = batch.inputs.shape[0], self.index // self.mesh.sequence
        rows = slice(place * count // self.mesh.data, (place + 1) * count // self.mesh.data)
        if rows.start == rows.stop:  # fewer rows than ranks: read along, since all ranks call the model together
            return Share(self._slice(_rows(batch, slice(0, 1))), 0)
        mine = self._slice(_rows(batch, rows))
        return Share(mine, mine.n_targets)

    def _slice(self, batch: Batch) -> Batch:
        """The columns of a batch that are this rank's."""
        count = self.mesh.sequence
        if self.exchange is None:
            return batch
        batch = _filled(batch, -batch.inputs.shape[1] % (count * self.exchange.pieces))
        whole = batch.lineage or Lineage.sequence(*batch.inputs.shape[:2])
        part = whole.cut(self.index % count, count, self.exchange)
        inputs, targets = [x.chunk(count, 1)[self.index % count] for x in (batch.inputs, batch.targets)]
        return Batch(inputs, targets, part=part)

    # ---- what ranks tell each other -----------------------------------------------------------------------------

    def total(self, value: float) -> float:
        """The sum over all ranks."""
        return self._reduced(value, dist.ReduceOp.SUM)

    def largest(self, value: float) -> float:
        """The largest of all ranks: what they must agree on."""
        return self._reduced(value, dist.ReduceOp.MAX)

    def sum_gradients(self, model: nn.Module) -> None:
        """Every gradient becomes its sum over all ranks: one message a dtype. Sharded ones are summed already."""
        if self.devices is None or is_sharded(model):
            return
        by_dtype: dict[torch.dtype, list[Tensor]] = {}
        for parameter in model.parameters():
            if parameter.grad is not None:
                by_dtype.setdefault(parameter.grad.dtype, []).append(parameter.grad)
        for gradients in by_dtype.values():
            flat = torch.cat([gradient.flatten() for gradient in gradients])
            dist.all_reduce(flat)
            sizes = [gradient.numel() for gradient in gradients]
            for gradient, summed in zip(gradients, flat.split(sizes), strict=True):
                gradient.copy_(summed.view_as(gradient))

    def group_of_its_own(self) -> dist.ProcessGroup | None:
        """All ranks once more, on CPUs, for what another thread says while the run goes on; None when alone."""
        return None if self.devices is None else dist.new_group(backend="gloo")

    def wait(self) -> None:
        """Until all ranks are here."""
        if self.devices is not None:
            dist.barrier()

    @contextmanager
    def first_alone(self) -> Iterator[None]:
        """Rank 0 goes through the block before the others begin it: what it writes to disk, they find there."""
        if not self.is_first:
            self.wait()
        yield
        if self.is_first:
            self.wait()

    def check_same(self, facts: Mapping[str, Any]) -> None:
        """ValueError on every rank, naming the first difference, when the ranks do not run the same thing."""
        if self.devices is None:
            return
        everyone: list[Mapping[str, Any]] = [{}] * self.mesh.size
        dist.all_gather_object(everyone, dict(facts))
        for rank, other in enumerate(everyone):
            for name in everyone[0]:
                if other.get(name) != everyone[0][name]:
                    raise ValueError(
                        f"all ranks must have the same {name}; rank 0 has {everyone[0][name]}, "
                        f"rank {rank} has {other.get(name)}"
                    )

    def told(self, find: Callable[[], Found]) -> Found:
        """What rank 0 finds, on all ranks."""
        found = [find() if self.is_first else None]
        if self.devices is not None:
            dist.broadcast_object_list(found, src=0)
        return cast(Found, found[0])

    def _reduced(self, value: float, how: Any) -> float:
        if self.devices is None:
            return value
        tensor = torch.tensor(value, dtype=torch.float64)
        dist.all_reduce(tensor, how)
        return float(tensor)


def _rows(batch: Batch, rows: slice) -> Batch:
    segments = None if batch.segments is None else batch.segments[rows]
    return replace(batch, inputs=batch.inputs[rows], targets=batch.targets[rows], segments=segments)


def _filled(batch: Batch, more: int) -> Batch:
    """Rows of tokens with empty columns at their end, so that they can be cut; the loss is the same."""
    if not more or batch.inputs.dim() > 2 or batch.targets.is_floating_point():
        return batch
    segments = None if batch.segments is None else pad(batch.segments, (0, more), value=-1)
    return Batch(pad(batch.inputs, (0, more)), pad(batch.targets, (0, more), value=IGNORE), segments)


@contextmanager
def opened(mesh: Mesh | None = None, exchange: str = "lasp2") -> Iterator[Ranks]:
    """This process's place in a mesh (None: all ranks share the rows) of the processes that torchrun started.

    exchange: a page of `layouts/`, how slices of one sequence tell each other what came before.

    An error on one rank ends the block on all of them; rank 0 raises it, and says whose it was. ValueError when the
    number of processes is not that of the mesh.
    """
    count = int(os.environ.get("WORLD_SIZE", "1"))
    mesh = Mesh(data=count) if mesh is None else mesh
    if mesh.size != count:
        raise ValueError(
            f"the mesh {mesh} needs {mesh.size} processes (torchrun --nproc-per-node {mesh.size} -m runnel ...); "
            f"got {count}"
        )
    layout = catalog.page("layouts", exchange)
    if count == 1:
        yield Ranks()
        return
    kind = "cuda" if torch.cuda.is_available() else "cpu"
    store, index, _ = next(rendezvous("env://", timeout=timedelta(minutes=10)))
    fresh = _of_this_start(store, count)
    words, place = c10d.PrefixStore("words", fresh), c10d.PrefixStore("group", fresh)
    backend = "cpu:gloo,cuda:nccl" if kind == "cuda" else "gloo"  # what is said about a step stays on CPUs
    dist.init_process_group(backend, store=place, rank=index, world_size=count)
    devices = init_device_mesh(kind, (mesh.data, mesh.sequence), mesh_dim_names=("data", "sequence"))
    try:
        with _terminated_by_error():
            slices = layout.Exchange(devices.get_group("sequence")) if mesh.sequence > 1 else None
            yield Ranks(mesh, index, devices, slices)
    except BaseException as error:
        if not _is_lost(error):
            _leave_word(error, words, index)  # before the connections close with this process
        elif index == 0:
            _raise_that_of_another(error, words, count)
        raise
    dist.destroy_process_group()


def _of_this_start(store: c10d.Store, count: int) -> c10d.Store:
    """A part of the launcher's store: what ranks left there that were started before is of processes that are gone."""
    attempt = f"{os.environ.get('TORCHELASTIC_RESTART_COUNT', '0')}/{count}"  # of another number when some are lost
    start = (store.add(f"starts/{attempt}", 1) - 1) // count
    return c10d.PrefixStore(f"{attempt}/{start}", store)


def _leave_word(error: BaseException, words: c10d.Store, index: int) -> None:
    """What happened on this rank, for rank 0 to say."""
    user = isinstance(error, ValueError)
    text = str(error) if user or isinstance(error, OSError) else f"{type(error).__name__}: {error}"
    words.set(str(index), ("user " if user else "machine ") + text)


def _raise_that_of_another(error: BaseException, words: c10d.Store, count: int) -> None:
    for index in range(1, count):
        if words.check([str(index)]):
            kind, _, text = words.get(str(index)).decode().partition(" ")
            raise (ValueError if kind == "user" else RankFailed)(f"rank {index}: {text}") from None
    raise RankFailed(
        "another process has ended without a word; the same command goes on from the last checkpoint"
    ) from error


class _Terminated(Exception):
    """SIGTERM outside of the training loop, which takes it in its own way: torchrun ends the ranks that are left."""


@contextmanager
def _terminated_by_error() -> Iterator[None]:
    def end(number: int, frame: FrameType | None) -> None:
        raise _Terminated("stopped by SIGTERM")

    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _is_lost(error: BaseException) -> bool:
    """Whether the error is that another rank is gone."""
    words = ("connection", "timed out", "nccl")
    gone = isinstance(error, RuntimeError) and any(word in str(error).lower() for word in words)
    return gone or isinstance(error, _Terminated)
