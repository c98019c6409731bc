"""What is compared and for how long: fixed by the first start in a folder, so that a restart does the same.

The budget is the time that the whole comparison may take. A step of every model is timed first; all models then get the
same number of steps, so that what the models need together fits into the budget on the processes that work side by
side. Half of the time goes to the text (the tries of learning rates included), the other half to the tasks.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from statistics import median

import torch

from runnel.codecs.bytes import Bytes
from runnel.compare import tasks
from runnel.compare.entrants import Entrant
from runnel.data import Source, open_source
from runnel.model import Model
from runnel.objectives import next_token
from runnel.storage import read_json, write_json
from runnel.train import TrainConfig
from runnel.train.optim import build_optimizers

FILE = "plan.json"
LEAST_STEPS = 10
SWEPT = 4
"""A learning rate is tried for the first 1/SWEPT of the steps."""
OVERHEAD = 1.5
"""What validations, scores, saving and starting add to the steps themselves."""


@dataclass(frozen=True)
class Plan:
    """steps: on the text. task_steps: on every task. pace: seconds of a step on the text, by model."""

    data: str
    entrants: tuple[Entrant, ...]
    equal: str
    budget: float
    seeds: int
    length: int
    batch_size: int
    rates: tuple[float, ...]
    tasks: tuple[str, ...]
    task_width: int
    task_layers: int
    workers: int
    steps: int = 0
    task_steps: int = 0
    pace: tuple[float, ...] = ()

    @property
    def swept_steps(self) -> int:
        return max(LEAST_STEPS, self.steps // SWEPT)

    @property
    def controls(self) -> tuple[Entrant, ...]:
        """Everything that is scored on the tasks: the models, then the control."""
        return (*self.entrants, Entrant(tasks.CONTROL, self.task_layers, self.task_width))

    def source(self) -> Source:
        return open_source(self.data, Bytes(), self.length, self.batch_size)


def with_entrants(plan: Plan, entrants: Sequence[Entrant]) -> Plan:
    return replace(plan, entrants=tuple(entrants))


def vocab_size(plan: Plan) -> int:
    """Of what is compared on. ValueError where the source has no tokens, or can be read only once."""
    if plan.data == "-":
        raise ValueError("a comparison reads its text again and again: give a file instead of -")
    found = plan.source().vocab_size
    if not found:
        raise ValueError(f"a comparison needs text or a source of tokens; {plan.data} has values")
    return found


def begin(folder: Path, plan: Plan, progress: Callable[[float, str], None]) -> Plan:
    """Time the models, settle the steps and write the plan. ValueError when the folder holds one, or time is short."""
    if (folder / FILE).exists():
        raise ValueError(f"{folder} holds a comparison; add --resume to go on with it, or choose another --out")
    source = plan.source()
    pace, task_pace = [], []
    for at, entrant in enumerate(plan.entrants):
        progress(at / len(plan.entrants), f"timing {entrant.pattern}")
        pace.append(_seconds_of_a_step(entrant.build(source.vocab_size), source))
        task_pace.append(_task_pace(plan, entrant) if plan.tasks else 0.0)
    task_pace.append(task_pace[0])  # the control
    steps, task_steps = _steps(plan, pace, task_pace)
    settled = replace(plan, steps=steps, task_steps=task_steps, pace=tuple(pace))
    write_json(folder / FILE, asdict(settled))
    return settled


def resume(folder: Path) -> Plan:
    """The plan of a folder. FileNotFoundError when there is none."""
    held = read_json(folder / FILE)
    entrants = tuple(Entrant(**entrant) for entrant in held["entrants"])
    lists = {name: tuple(held[name]) for name in ("rates", "tasks", "pace")}
    return Plan(**{**held, **lists, "entrants": entrants})


def check_same(asked: Plan, held: Plan, folder: Path) -> None:
    """ValueError when --resume was given with other settings than the folder was begun with."""
    settled = ("steps", "task_steps", "pace", "workers")
    for name in (field.name for field in fields(asked) if field.name not in settled):
        if getattr(asked, name) != getattr(held, name):
            raise ValueError(f"{folder} was begun with {name} {getattr(held, name)!r}; got {getattr(asked, name)!r}")


def _steps(plan: Plan, pace: Sequence[float], task_pace: Sequence[float]) -> tuple[int, int]:
    """Steps on the text and on each task, or a ValueError that says what the least would cost."""
    seconds = plan.budget * plan.workers / OVERHEAD
    share = 0.5 if plan.tasks else 1.0
    tries = len(plan.rates) / SWEPT if len(plan.rates) > 1 else 0.0
    a_step = sum(pace) * (plan.seeds + tries)
    a_task_step = sum(task_pace) * len(plan.tasks) * plan.seeds
    least = LEAST_STEPS * max(a_step / share, a_task_step / share if plan.tasks else 0.0) * OVERHEAD / plan.workers
    if plan.budget < least:
        raise ValueError(
            f"--budget must be at least {least:.0f}s for these {len(pace)} models and {len(plan.tasks)} tasks; "
            f"got {plan.budget:.0f}s"
        )
    return int(share * seconds / a_step), int(share * seconds / a_task_step) if plan.tasks else 0


def _task_pace(plan: Plan, entrant: Entrant) -> float:
    task = tasks.find(plan.tasks[0])[0]
    source = task.open(1, tasks.TRAIN_ROWS, 0)
    model = entrant.small(plan.task_width, plan.task_layers, 0, **tasks.domain(source))
    return _seconds_of_a_step(model, source)


def _seconds_of_a_step(model: Model, source: Source) -> float:
    """Median of three on one thread, after one that warms up."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    optimizers = build_optimizers(model, TrainConfig(steps=1, optimizer="muon"))
    found, batch = [], source.batch(0)
    for _ in range(4):
        started = time.perf_counter()
        next_token.loss(model, batch).backward()
        for optimizer in optimizers:
            optimizer.step()
        found.append(time.perf_counter() - started)
    torch.set_num_threads(threads)
    return median(found[1:])
