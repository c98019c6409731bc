"""What conversion costs: a teacher that recalls, its attention layers converted, and the gap in bits and in recall.

    python recipes/convert.py                     all targets, three seeds; half an hour on one core
    python recipes/convert.py --only gla,mamba2   some of them

Where no attention stays, every target is begun twice: with the teacher's weights, and with the new mixers at random,
both taught for the same steps. A run that has ended is a line of runs/convert/runs.jsonl and is not repeated; an
interrupted one goes on. The page goes to docs/results/convert.md.
"""

from __future__ import annotations

import argparse
import itertools
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch

import runnel
from runnel import catalog, convert, train
from runnel.codecs.bytes import Bytes
from runnel.data import Source, open_source
from runnel.model import Model
from runnel.storage import remembered
from runnel.trained.pupil import Pupil

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "results" / "convert.md"
PATTERN = "attention(head_dim=16)*4"
CASES = (("1/4", "teacher"), ("0", "teacher"), ("0", "random"))
"""The share that is kept, and what the new mixers begin with."""
OPTIONS = {"liger": "liger(window=8)"}
"""Targets that are made otherwise than by default: rows are shorter than its window."""
SEEDS = (6, 7, 8)
"""Of the teacher, of new weights and of the order of the data."""


@dataclass(frozen=True)
class Plan:
    """teacher_steps, transfer_steps, steps: of the teacher, and of the two stages of conversion."""

    seed: int = 6
    length: int = 32
    batch_size: int = 32
    teacher_steps: int = 1600
    transfer_steps: int = 100
    steps: int = 300
    lr: float = 3e-3


def open_recall(plan: Plan) -> Source:
    return open_source(convert.RECALL, Bytes(), plan.length, plan.batch_size, plan.seed)


def teacher(plan: Plan, folder: Path) -> Model:
    """Trained here, or before."""
    source = open_recall(plan)
    model = runnel.build(PATTERN, vocab_size=source.vocab_size, d_model=32, seed=plan.seed)
    config = train.TrainConfig(steps=plan.teacher_steps, lr=5e-3, schedule="wsd", valid_every=None, seed=plan.seed)
    train.fit(model, source, folder / f"teacher-{plan.seed}-{plan.teacher_steps}", config)
    return model.eval()


def shuffled(pupil: Pupil) -> Pupil:
    """The same pupil whose new mixers forget what they were given: as a fresh model of its pattern has them."""
    fresh = dict(runnel.build(**{**pupil.config.to_dict(), "seed": pupil.config.seed + 1}).named_parameters())
    own = tuple(f"layers.{i}.mixer." for i in pupil.replaced)
    for name, parameter in pupil.named_parameters():
        if name.startswith(own):
            parameter.data = fresh[name].data
    return pupil


def perform(to: str, keep: str, start: str, plan: Plan, origin: Model, folder: Path) -> dict[str, Any]:
    """Convert, teach, measure; a JSON-able record."""
    source = open_recall(plan)
    pupil = convert.begin(origin, to, keep, plan.seed)
    if start == "random":
        pupil = shuffled(pupil)
    before = convert.Gap.of(pupil, source)
    place = folder / f"{to}-{keep.replace('/', 'of')}-{start}-{plan.seed}-{plan.transfer_steps}-{plan.steps}"
    seconds = 0.0
    for stage in convert.stages(plan.transfer_steps, plan.steps, lr=plan.lr, seed=plan.seed, valid_every=None):
        seconds += train.fit(pupil, source, place / stage.folder, stage.config).seconds
    after = convert.Gap.of(pupil.eval(), source)
    of_teacher = convert.Gap.of(origin, source)
    gaps = {"teacher": asdict(of_teacher), "before": asdict(before), "after": asdict(after)}
    state = {name: state_bytes(model, plan.length) for name, model in (("teacher", origin), ("pupil", pupil))}
    return {**gaps, "replaced": len(pupil.replaced), "seconds": seconds, "state_bytes": state}


@torch.no_grad()
def state_bytes(model: Model, length: int) -> int:
    _, state = model(torch.zeros(1, length, dtype=torch.long))
    return state.nbytes - state.lengths.nbytes


def table(records: Sequence[dict[str, Any]]) -> str:
    """Markdown; the teachers first. Means over the seeds; after training, also the lowest and the highest."""
    head = [
        "becomes",
        "kept",
        "begun with",
        "bits before",
        "bits after",
        "recall before",
        "recall after",
        "state bytes",
    ]
    teachers = [record["teacher"] for record in records]
    bytes_ = f"{records[0]['state_bytes']['teacher']:,}"
    lines = [head, ["---"] * len(head)]
    lines.append(["teacher", "all", "", "", spread(teachers, "bits"), "", spread(teachers, "recall"), bytes_])
    cases = {(record["to"], record["keep"], record["start"]): None for record in records}
    for case in cases:
        own = [record for record in records if (record["to"], record["keep"], record["start"]) == case]
        before, after = [[record[when] for record in own] for when in ("before", "after")]
        numbers = [mean(before, "bits"), spread(after, "bits"), mean(before, "recall"), spread(after, "recall")]
        lines.append([f"`{case[0]}`", *case[1:], *numbers, f"{own[0]['state_bytes']['pupil']:,}"])
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def mean(gaps: Sequence[dict[str, float]], name: str) -> str:
    return f"{sum(gap[name] for gap in gaps) / len(gaps):.3f}"


def spread(gaps: Sequence[dict[str, float]], name: str) -> str:
    """The mean, and between what the seeds lie."""
    values = [gap[name] for gap in gaps]
    same = f"{min(values):.3f}" == f"{max(values):.3f}"
    return mean(gaps, name) + ("" if same else f" ({min(values):.3f} to {max(values):.3f})")


def page(records: Sequence[dict[str, Any]], seeds: Sequence[int]) -> str:
    plan = Plan()
    return f"""# What conversion costs

Made by `python recipes/convert.py`; how it works is in [convert.md](../convert.md). The teacher, `{PATTERN}` of width
32, was trained for {plan.teacher_steps} steps on associative recall (four pairs, 32 keys, rows of {plan.length}
tokens), where guessing among a row's values gives 0.25. Its attention layers are converted, but for the share that is
kept, and taught for {plan.transfer_steps} steps layer by layer and {plan.steps} steps end to end, batches of
{plan.batch_size}. "teacher": the new layers begin with its weights; "random": as those of a fresh model, everything
else the teacher's. Means over {len(seeds)} seeds ({", ".join(map(str, seeds))}), each with a teacher of its own; in
brackets the lowest and the highest. Bits are per asked token, held out. State bytes are of one row after {plan.length}
tokens; those of attention grow with the text, the others do not. `liger` keeps half of the teacher's attention within
a window, here of a quarter of the row.

{table(records)}
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", help="targets, with commas")
    parser.add_argument("--seeds", default=",".join(map(str, SEEDS)), help="with commas")
    parser.add_argument("--folder", type=Path, default=Path("runs/convert"), help="where runs are kept")
    options = parser.parse_args()
    asked = options.only.split(",") if options.only else catalog.names("conversions")
    names = [OPTIONS.get(name, name) for name in asked]
    torch.set_num_threads(1)
    seeds, records = [int(seed) for seed in options.seeds.split(",")], list[dict[str, Any]]()
    options.folder.mkdir(parents=True, exist_ok=True)
    for plan in (Plan(seed=seed) for seed in seeds):
        origin = teacher(plan, options.folder)
        for to, (keep, start) in itertools.product(names, CASES):
            key = {"to": to, "keep": keep, "start": start, **asdict(plan)}
            make = partial(perform, to, keep, start, plan, origin, options.folder)
            records.append(remembered(options.folder / "runs.jsonl", key, make))
            print(
                f"{plan.seed}: {to} keep {keep} from {start}: recall {records[-1]['after']['recall']:.3f}", flush=True
            )
    print(table(records))
    if not options.only:
        PAGE.write_text(page(records, seeds), encoding="utf-8")


if __name__ == "__main__":
    main()
