"""`runnel plan`: memory, traffic, time and price of training a model on machines that need not be there."""

from __future__ import annotations

import os
from collections import Counter
from dataclasses import asdict, replace
from importlib.util import find_spec
from typing import TYPE_CHECKING, Annotated

import typer

from runnel import catalog
from runnel.cli import _screen, _training

if TYPE_CHECKING:
    from runnel.ops.attend import KeyValues
    from runnel.plans import Cluster, Workload
    from runnel.plans._layouts import Plan
    from runnel.state import Memory

UNITS = {"k": 1 << 10, "M": 1 << 20}


def command(
    pattern: Annotated[str, typer.Argument(help='Pattern of mixers, such as "(mamba2*3, attention)*8".')],
    devices: Annotated[str, typer.Option(help="How many of what: 64xH100.")] = "8xH100",
    length: Annotated[str, typer.Option(help="Tokens in a row: 4096, 64k (of 1024), 1M (of 1024 * 1024).")] = "4k",
    batch: Annotated[int, typer.Option(help="Rows in a step, over all devices.")] = 64,
    accumulate: Annotated[int, typer.Option(help="Micro-batches in a step, as `runnel train` has them.")] = 1,
    objective: Annotated[
        str, typer.Option(help="The loss; next_token_in_chunks holds few logits at once.")
    ] = "next_token",
    d_model: Annotated[int, typer.Option(help="Width of the model.")] = 2048,
    layers: Annotated[int | None, typer.Option(help="Repeat the pattern to this many layers.")] = None,
    vocab_size: Annotated[int, typer.Option(help="Tokens in the vocabulary.")] = 32_000,
    lengths: Annotated[
        str | None, typer.Option(help="Rows of one step by length, 64k*2,4k*60: groups of devices for them.")
    ] = None,
    measure: Annotated[
        bool, typer.Option("--measure", help="This machine and this model in float32, measured; not --devices.")
    ] = False,
    show: Annotated[int, typer.Option(help="How many layouts to list.")] = 4,
    json: Annotated[bool, typer.Option("--json", help="Print the layouts as JSON.")] = False,
) -> None:
    """What a run will take, the best way to share it first.

    \b
    Example:
        runnel plan "gla*16" --devices 64xA100 --length 2M --batch 1
    \b
    The numbers are arithmetic over data sheets (src/runnel/plans/devices.json), for comparing layouts with
    each other. With --measure the model is built and run on short rows here, forward and backward, whole and in slices,
    and the devices are this process, or, under torchrun, all of them. With --lengths rows of many lengths are shared
    among groups of devices of different sizes, by integer programming (needs `pip install 'runnel[packing]'`).
    """
    from runnel.plans import Cluster, redundant_sharding

    work = workload(pattern, d_model, layers, vocab_size, parse_length(length), batch)
    if accumulate < 1 or batch % accumulate:
        raise ValueError(f"--accumulate must divide --batch {batch}; got {accumulate}")
    held = getattr(catalog.page("objectives", objective), "AT_ONCE", None)
    work = replace(work, rows=batch // accumulate, accumulate=accumulate, logits=held)
    if measure:
        from runnel.cli import _calibrated
        from runnel.plans import _calibration

        with _training.ranks(None, "lasp2") as ranks:
            cluster = Cluster(_calibration.this_machine(_memory(), ranks.mesh.size), ranks.mesh.size)
            work, config = _calibrated.measured(work, pattern, layers, ranks)
            _show(work, redundant_sharding.plans(work, cluster, config), cluster, show, json)
        return
    cluster = Cluster.parse(devices)
    if lengths is not None:
        _show_groups(work, parse_rows(lengths), cluster, json)
        return
    _show(work, redundant_sharding.plans(work, cluster), cluster, show, json)


def _show(work: Workload, found: list[Plan], cluster: Cluster, show: int, json: bool) -> None:
    if json:
        kept = [{"name": str(plan.layout), **asdict(plan)} for plan in found[:show]]
        _screen.print_json({"workload": asdict(work), "flops": work.flops, "layouts": kept})
        return
    print(f"{work.parameters:,} parameters, {work.tokens:,} tokens and {work.flops:.3g} operations a step")
    for line in _screen.columns([HEADER, *[_row(plan) for plan in found[:show]]]):
        print(line)
    for line in _why(found, cluster.device.memory):
        print(line)


def parse_length(text: str) -> int:
    """A number of tokens such as 4096, 64k or 1M."""
    unit = UNITS.get(text[-1:], 1)
    digits = text[:-1] if unit > 1 else text
    if not digits.isdecimal() or int(digits) < 1:
        raise ValueError(f"--length must be tokens such as 4096, 64k or 1M; got {text!r}")
    return int(digits) * unit


def parse_rows(text: str) -> list[int]:
    """The length of every row of 64k*2,4k*60."""
    rows: list[int] = []
    for part in text.split(","):
        length, star, count = part.partition("*")
        if star and not (count.isdecimal() and int(count) > 0):
            raise ValueError(f"--lengths must be like 64k*2,4k*60; got {text!r}")
        rows += [parse_length(length)] * (int(count) if star else 1)
    return rows


def _show_groups(work: Workload, lengths: list[int], cluster: Cluster, json: bool) -> None:
    from runnel.plans import _group_costs, sequence_groups

    if find_spec("scipy") is None:
        raise ValueError("--lengths needs one more package: pip install 'runnel[packing]'")
    config = _group_costs.costs(work, cluster)
    found, even = sequence_groups.plan(lengths, cluster.count, config), sequence_groups.even(lengths, cluster, config)
    groups = [(degree, [lengths[row] for row in rows]) for degree, rows in zip(found.degrees, found.rows, strict=True)]
    if json:
        told = [{"devices": degree, "rows": rows} for degree, rows in groups]
        _screen.print_json({"groups": told, "seconds": found.seconds, "even": even and asdict(even)})
        return
    for degree, rows in groups:
        print(f"{degree} devices: " + (f"rows of {_counted(rows)} tokens" if rows else "nothing"))
    alike = "rows fit into no groups of one size"
    if even is not None:
        alike = f"groups of {even.degrees[0]} devices each take {even.seconds:.3g} s"
    print(f"a step of {found.seconds:.3g} s; {alike}")


def _counted(lengths: list[int]) -> str:
    return ", ".join(f"{length:,}" + (f" ({n} times)" if n > 1 else "") for length, n in Counter(lengths).items())


def _memory() -> float:
    """Bytes of this machine, or of its GPU."""
    import torch

    if torch.cuda.is_available():
        return float(torch.cuda.get_device_properties(0).total_memory)
    return float(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))


def workload(pattern: str, d_model: int, layers: int | None, vocab_size: int, length: int, rows: int) -> Workload:
    """What a model of this pattern asks of a step, counted on tensors without memory."""
    import torch

    import runnel
    from runnel.links import share_weights
    from runnel.ops.attend import KeyValues
    from runnel.plans import Workload
    from runnel.state import leaves

    if rows < 1:
        raise ValueError(f"--batch must be at least 1; got {rows}")
    with torch.device("meta"):
        model = runnel.build(pattern, vocab_size, d_model, layers)
        memories = [mixer.init_state(1) for mixer in model.mixers]
    parameters = sum(p.numel() for p in model.parameters())
    embedded = sum(p.numel() for p in model.embed.parameters())
    caches = [cache for memory in memories for cache in _caches(memory, KeyValues)]
    return Workload(
        parameters=parameters,
        matrices=parameters - embedded,
        layers=len(memories),
        d_model=d_model,
        states=sum(x.numel() * x.element_size() for memory in memories for x in leaves(memory)),
        keys=sum(2 * (cache.k.shape[2] * (cache.k.shape[3] + cache.v.shape[3])) for cache in caches),
        attention=len(caches),
        outcomes=vocab_size,
        length=length,
        rows=rows,
        shared=share_weights(model.layers),
    )


def _caches(memory: Memory, kind: type[KeyValues]) -> list[KeyValues]:
    """The attention memories of a layer."""
    if isinstance(memory, kind):
        return [memory]
    return [found for child in memory for found in _caches(child, kind)] if isinstance(memory, tuple) else []


HEADER = ["layout", "memory", "parameters", "optimizer", "activations", "sent", "step", "price"]


def _row(plan: Plan) -> list[str]:
    parts = [plan.memory["parameters"] + plan.memory["gradients"], plan.memory["optimizer"], plan.memory["activations"]]
    sizes = [_screen.size(size) for size in (sum(plan.memory.values()), *parts, sum(plan.sent.values()))]
    fits = "" if plan.fits else " (does not fit)"
    return [f"{plan.layout}{fits}", *sizes, f"{plan.seconds:.3g} s", f"{plan.price:.3g} $"]


def _why(found: list[Plan], memory: float) -> list[str]:
    from runnel.plans._reasons import reasons

    best, possible = found[0], sum(plan.fits for plan in found)
    if not best.fits:
        least, part = _screen.size(sum(best.memory.values())), max(best.memory, key=best.memory.__getitem__)
        nothing = f"no layout of {len(found)} fits into {_screen.size(memory)}"
        largest = f"most of it {part} ({_screen.size(best.memory[part])})"
        return [f"{nothing}: the smallest takes {least}, {largest}; --accumulate has fewer rows at once"]
    bound = "computing" if best.compute >= best.communication else "sending"
    links = ", ".join(f"{_screen.size(size)} {link} nodes" for link, size in best.links.items())
    return [
        f"first of the {possible} (of {len(found)}) that fit: a step of {best.compute:.3g} s of computing and "
        f"{best.communication:.3g} s of sending ({links}), bound by {bound}",
        *(f"not {reason}" for reason in reasons(found)),
    ]
