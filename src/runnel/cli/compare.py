"""`runnel compare`: several architectures on one text, told honestly."""

from __future__ import annotations

import math
import os
import sys
from contextlib import redirect_stdout
from dataclasses import replace
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from runnel.cli import _screen
from runnel.cli.train import parse_seconds

if TYPE_CHECKING:
    from runnel.compare import Plan

MODELS = "mamba2,gla,rwkv7,attention,(mamba2*3,attention)"


class Equal(StrEnum):
    NONE = "none"
    PARAMS = "params"
    STATE = "state"
    FLOPS = "flops"


def command(
    source: Annotated[str, typer.Argument(help="A file, a folder or a generator of tokens.")],
    models: Annotated[str, typer.Option(help="Patterns with commas between them.")] = MODELS,
    budget: Annotated[str, typer.Option(help="Time for all of it: 90s, 10m, 2h.")] = "10m",
    equal: Annotated[Equal, typer.Option(help="What is made equal to the first model's, by width.")] = Equal.NONE,
    seeds: Annotated[int, typer.Option(help="Runs of every model.")] = 1,
    d_model: Annotated[int, typer.Option(help="Width, of the first model.")] = 128,
    layers: Annotated[int, typer.Option(help="Layers of every model, at least.")] = 4,
    length: Annotated[int, typer.Option(help="Tokens in a row.")] = 256,
    batch: Annotated[int, typer.Option(help="Rows in a step.")] = 8,
    rates: Annotated[str, typer.Option(help="Learning rates that every model tries.")] = "2e-3,6e-3,2e-2",
    tasks: Annotated[str, typer.Option(help="Tasks of the matrix by name, all or none.")] = "all",
    task_width: Annotated[int, typer.Option(help="Width of the models of the tasks.")] = 32,
    task_layers: Annotated[int, typer.Option(help="Their layers, at least.")] = 2,
    jobs: Annotated[int | None, typer.Option(help="Processes side by side. (default: one a core)")] = None,
    ray: Annotated[
        str | None, typer.Option(help="Do the jobs on the Ray cluster at this address; local: one of its own.")
    ] = None,
    out: Annotated[Path, typer.Option(help="Folder of the comparison.")] = Path("runs/compare"),
    resume: Annotated[bool, typer.Option("--resume", help="Go on with what the folder holds.")] = False,
    json: Annotated[bool, typer.Option("--json", help="Print the report as JSON.")] = False,
) -> None:
    """Train several architectures under the same tokens, and say what each costs and can do.

    \b
    Example:
        python3 -c "import this; print(this.s * 20)" > zen.txt
        runnel compare zen.txt --models "mingru,gla" --budget 40s --tasks parity --d-model 16 --layers 1 --length 32
    \b
    Writes report.html and report.json. Ctrl-C keeps what is finished; the same
    command with --resume goes on, with --ray or without.
    """
    from runnel import compare
    from runnel.compare import fleet
    from runnel.compare import plan as plans
    from runnel.compare import tasks as known

    asked = compare.Plan(
        data=source,
        entrants=(),
        equal=equal.value,
        budget=parse_seconds(budget, "--budget"),
        seeds=_at_least_one("--seeds", seeds),
        length=length,
        batch_size=batch,
        rates=_rates(rates),
        tasks=tuple(task.name for task in known.find(tasks)),
        task_width=task_width,
        task_layers=_at_least_one("--task-layers", task_layers),
        workers=_at_least_one("--jobs", _cores(ray) if jobs is None else jobs),
    )
    with _screen.working(f"reading {source}"):
        vocab_size = plans.vocab_size(asked)
    entrants = compare.parse_entrants(models, d_model, layers, equal.value, vocab_size)
    asked = plans.with_entrants(asked, entrants)
    with _screen.bar("comparing") as bar:
        if resume:
            plan = replace(compare.resume(out), workers=asked.workers)
            plans.check_same(asked, plan, out)
        else:
            plan = compare.begin(out, asked, bar.update)
        try:
            with redirect_stdout(sys.stderr):  # Ray says there when a worker has died
                records = compare.run_jobs(plan, out, bar.update, None if ray is None else partial(fleet.Fleet, ray))
        except KeyboardInterrupt:
            raise KeyboardInterrupt(f"stopped; what is finished is in {out}; add --resume to go on") from None
    summary = compare.summarise(plan, records)
    compare.write_report(out, summary)
    if json:
        _screen.print_json(summary)
    else:
        _print(plan, summary, out)


def _cores(ray: str | None) -> int:
    from runnel.compare import fleet

    return len(os.sched_getaffinity(0)) if ray is None else fleet.cores(ray)


def _print(plan: Plan, summary: dict[str, Any], folder: Path) -> None:
    head = ["model", "bits per token", "parameters", "state at 32k", "trained tok/s", "decoded tok/s"]
    rows = sorted(summary["models"], key=lambda model: math.inf if model["bits"] is None else model["bits"])
    print("\n".join(_screen.columns([head, *(_row(model) for model in rows)])))
    print("; ".join(f"{name} {bits:.3f}" for name, bits in summary["baselines"].items()))
    print(f"{plan.steps} steps each; the whole report is in {folder / 'report.html'}")


def _row(model: dict[str, Any]) -> list[str]:
    return [
        model["pattern"],
        "diverged" if model["bits"] is None else f"{model['bits']:.3f}",
        f"{model['parameters']:,}",
        _screen.size(model["state_bytes"]["32k"]),
        "" if model["train_tokens_per_second"] is None else f"{model['train_tokens_per_second']:,.0f}",
        f"{model['decode_tokens_per_second']:,.0f}",
    ]


def _at_least_one(option: str, number: int) -> int:
    if number < 1:
        raise ValueError(f"{option} must be at least 1; got {number}")
    return number


def _rates(text: str) -> tuple[float, ...]:
    try:
        found = tuple(float(rate) for rate in text.split(","))
    except ValueError:
        found = ()
    if not found or not all(0 < rate < float("inf") for rate in found):
        raise ValueError(f"--rates must be positive numbers with commas between them; got {text!r}")
    return found
