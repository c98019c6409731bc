"""What a model takes on this machine, measured on short rows, and on slices of them where several processes are."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
import torch.distributed as dist
from torch.distributed.device_mesh import init_device_mesh

import runnel
from runnel import catalog
from runnel.cli import _sending
from runnel.objectives import next_token
from runnel.plans import Measured, Workload, divisors
from runnel.plans._calibration import curve, in_turn, keeping, kept, pace, seconds
from runnel.plans._layouts import Config
from runnel.train import Mesh, Ranks, TrainConfig, optim, sharding
from runnel.types import Batch

if TYPE_CHECKING:
    from runnel.model import Model

SHORT = 512
"""Slices are at most so long, or a half and a quarter of that: what they take is a polynomial of the length."""
FEW = 8
"""Rows, at most."""
FIELDS = ("saved", "inputs", "layers", "forward", "whole")


class _Timed(NamedTuple):
    """What is timed for rows cut into so many slices of this length."""

    name: str
    slices: int
    rows: int
    length: int
    call: Callable[[], object]


def measured(work: Workload, pattern: str, layers: int | None, ranks: Ranks) -> tuple[Workload, Config]:
    """The workload and the bytes of training in float32, of the rank that takes most. All ranks must ask."""

    def build() -> Model:
        return runnel.build(pattern, work.outcomes, work.d_model, layers).to(_kind())

    model, again = build(), build()
    sharding.recompute(again)
    found: dict[str, dict[int, Any]] = {name: {} for name in FIELDS}
    logits, timed = 0.0, list[_Timed]()
    for slices in divisors(ranks.mesh.size):
        data = ranks.mesh.size // slices
        if work.length % slices or work.rows % data:
            continue
        place, rows = arranged(Mesh(data, slices)), min(FEW, work.rows // data)
        lengths = sorted({max(1, min(work.length // slices, SHORT) // part) for part in (4, 2, 1)})
        shares = [_share(place, rows, length, work.outcomes) for length in lengths]
        for name, sizes in _bytes(model, again, shares).items():
            found[name][slices] = curve(lengths, [ranks.largest(size) / rows for size in sizes])
        alone = zip(*[by_layer(model, share) for share in shares], strict=True)
        found["layers"][slices] = tuple(
            curve(lengths, [ranks.largest(size) / rows for size in sizes]) for sizes in alone
        )
        for name, calls in _calls(model, shares).items():
            timed += [_Timed(name, slices, rows, *each) for each in zip(lengths, calls, strict=True)]
        logits = logits or _logits(model, shares[-1]) / (rows * lengths[-1] * work.outcomes)
    taken: dict[tuple[str, int], dict[int, float]] = {}
    for one, time in zip(timed, in_turn([one.call for one in timed], _kind()), strict=True):
        taken.setdefault((one.name, one.slices), {})[one.length] = ranks.largest(time) / one.rows
    for (name, slices), times in taken.items():
        found[name][slices] = pace(list(times), list(times.values()))
    config = Config(weight=4, gradient=4, optimizer=8, recomputed=4, logits=logits)
    update = _update(model, work.parameters)
    return replace(work, measured=Measured(**found, update=update, sending=_sending.measured(build, ranks))), config


def arranged(mesh: Mesh) -> Ranks:
    """This process's place when those of the run stand in another mesh; slices tell each other what came before."""
    if mesh.size == 1:
        return Ranks()
    devices = init_device_mesh(_kind(), (mesh.data, mesh.sequence), mesh_dim_names=("data", "sequence"))
    page = catalog.page("layouts", "lasp2")
    exchange = page.Exchange(devices.get_group("sequence")) if mesh.sequence > 1 else None
    return Ranks(mesh, dist.get_rank(), devices, exchange)


def _share(place: Ranks, rows: int, length: int, outcomes: int) -> Batch:
    """So many rows of slices of this length for this process."""
    shape = (rows * place.mesh.data, length * place.mesh.sequence)
    tokens = torch.randint(0, outcomes, shape, generator=torch.Generator().manual_seed(0)).to(_kind())
    return place.own(Batch(tokens, tokens)).batch


def _bytes(model: Model, again: Model, shares: list[Batch]) -> dict[str, list[int]]:
    def of(one: Model, share: Batch) -> int:
        return kept(lambda: one.features(share.inputs, lineage=share.lineage), one.parameters())

    return {
        "saved": [of(model, share) for share in shares],
        "inputs": [of(again, share) for share in shares],
    }


def by_layer(model: Model, share: Batch) -> list[int]:
    """Bytes that each layer keeps, beside its input."""
    sizes: list[int] = []
    with _watched(model, sizes):
        model.features(share.inputs, lineage=share.lineage)
    return sizes


@contextmanager
def _watched(model: Model, sizes: list[int]) -> Iterator[None]:
    """The bytes that each layer keeps, from here on."""

    def watch(layer: Any, forward: Callable[..., Any]) -> Callable[..., Any]:
        def watched(x: torch.Tensor, *rest: Any) -> Any:
            with keeping([x, *layer.parameters()]) as size:
                made = forward(x, *rest)
                sizes.append(size())
            return made

        return watched

    for layer in model.layers:
        layer.forward = watch(layer, layer.forward)
    yield
    for layer in model.layers:
        del layer.forward


def _logits(model: Model, share: Batch) -> int:
    """Bytes that the head and the loss keep."""
    whole = kept(lambda: next_token.loss(model, share), model.parameters())
    return whole - kept(lambda: model.features(share.inputs, lineage=share.lineage), model.parameters())


def _calls(model: Model, shares: list[Batch]) -> dict[str, list[Callable[[], object]]]:
    """What is timed, for every share: the layers forward, and a whole step but for the update."""

    def whole(share: Batch) -> None:
        model.zero_grad()
        next_token.loss(model, share).backward()

    return {
        "forward": [partial(model.features, share.inputs, lineage=share.lineage) for share in shares],
        "whole": [partial(whole, share) for share in shares],
    }


def _update(model: Model, parameters: int) -> float:
    """Seconds to update a parameter, by the model's own gradients of the last step."""
    optimizers = optim.build_optimizers(model, TrainConfig(steps=1))
    return seconds(lambda: [optimizer.step() for optimizer in optimizers], _kind()) / parameters


def _kind() -> str:
    return "cuda" if torch.cuda.is_available() else "cpu"
