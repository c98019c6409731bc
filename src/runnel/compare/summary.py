"""What a comparison found, as one value: what report.json holds and report.html shows."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from runnel.compare import charts, jobs, page, tasks
from runnel.compare.plan import Plan
from runnel.compare.work import HELD_OUT
from runnel.data import text
from runnel.data.baselines import ngram
from runnel.storage import write_atomically, write_json

COUNTED = 8 << 20
"""Bytes of the training text that n-grams count at most."""

Summary = dict[str, Any]


def summarise(plan: Plan, records: Sequence[dict[str, Any]]) -> Summary:
    """Models in the order asked for; means over seeds, with the values of the seeds beside them."""
    return {
        "data": plan.data,
        "equal": plan.equal,
        "budget_seconds": plan.budget,
        "seeds": plan.seeds,
        "steps": plan.steps,
        "tokens": plan.steps * plan.length * plan.batch_size,
        "length": plan.length,
        "rates": list(plan.rates),
        "swept_steps": plan.swept_steps,
        "task_steps": plan.task_steps,
        "task_width": plan.task_width,
        "task_layers": plan.task_layers,
        "multiples": list(tasks.MULTIPLES),
        "baselines": baselines(plan),
        "models": [_model(plan, records, at) for at in range(len(plan.entrants))],
        "rows": [entrant.pattern for entrant in plan.controls],
        "tasks": [_task(plan, records, task) for name in plan.tasks for task in tasks.find(name)],
    }


def write_report(folder: Path, summary: Summary) -> None:
    """report.json, and report.html with its pictures inside."""
    write_json(folder / "report.json", summary)
    pictures = {"curves": charts.curves(summary), "trade": charts.trade(summary), "matrix": charts.matrix(summary)}
    text = page.render(summary, pictures)
    write_atomically(folder / "report.html", lambda path: _write(path, text))


def baselines(plan: Plan) -> dict[str, float]:
    """Bits per token: n-grams on the same held-out bytes, or what a generator knows of itself."""
    source = plan.source()
    if not isinstance(source, text.Source):
        known = {name: nats for name, nats in source.facts.items() if name.endswith("_nats")}
        return {name.removesuffix("_nats"): nats / math.log(2) for name, nats in known.items()}
    seen, held_out = source.sample(COUNTED)
    bits = ngram.bits_per_byte(seen, held_out[: HELD_OUT * plan.batch_size * plan.length], order=5)
    return {"unigram": bits[1], "order-3 n-gram": bits[3], "order-5 n-gram": bits[5]}


def _model(plan: Plan, records: Sequence[dict[str, Any]], at: int) -> dict[str, Any]:
    entrant = plan.entrants[at]
    runs = [record for record in records if record["kind"] == "text" and record["model"] == at]
    good = [run for run in runs if "diverged" not in run]
    tried = {str(r["rate"]): r.get("nats") for r in records if r["kind"] == "rate" and r["model"] == at}
    speed = next((record for record in records if record["kind"] == "speed" and record["model"] == at), {})
    bits = [run["nats"] / math.log(2) for run in good]
    return {
        **entrant.to_dict(),
        "rate": jobs.best_rate(plan, records, at),
        "nats_by_rate": tried,
        "bits_by_seed": bits,
        "bits": fmean(bits) if bits else None,
        "diverged": len(runs) - len(good),
        "curves": [run["curve"] for run in good],
        "train_tokens_per_second": fmean(run["tokens_per_second"] for run in good) if good else None,
        **{name: value for name, value in speed.items() if name not in ("kind", "model", "seed", "rate", "task")},
    }


def _task(plan: Plan, records: Sequence[dict[str, Any]], task: tasks.Task) -> dict[str, Any]:
    """scores: a list of cells, by multiple, for every model and the control; None where no run ended well."""
    of_task = [record for record in records if record["kind"] == "task" and record["task"] == task.name]
    rows = []
    for at in range(len(plan.controls)):
        found = [record["scores"] for record in of_task if record["model"] == at and "scores" in record]
        rows.append([_cell([scores[str(k)] for scores in found], task) for k in tasks.MULTIPLES])
    for row in rows:
        for cell, control in zip(row, rows[-1], strict=True):
            if cell is not None:
                cell["share"] = tasks.share(task, cell["value"], cell, None if control is None else control["value"])
    return {**tasks.describe(task), "scores": rows}


def _cell(found: list[dict[str, float]], task: tasks.Task) -> dict[str, Any] | None:
    """value: the mean over seeds of what is shown."""
    if not found:
        return None
    values = [tasks.shown(task, score) for score in found]
    return {
        "value": fmean(values),
        "by_seed": values,
        "nats": fmean(score["nats"] for score in found),
        "optimal_nats": fmean(score["optimal_nats"] for score in found),
        "chance_nats": fmean(score["chance_nats"] for score in found),
    }


def _write(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8")
