"""Do the models by name land where their papers say? Each trained on ETTh1 at horizon 96 under the standard protocol.

    python recipes/forecasters.py ETTh1.csv                              all of them, up to an hour each
    python recipes/forecasters.py ETTh1.csv --models itransformer,tide   some of them
    python recipes/forecasters.py ETTh1.csv --seconds 60                 a look, with a minute for each
    python recipes/forecasters.py ETTh1.csv --known                      the page of what has been run

A run that has ended is a line of runs/forecasters/runs.jsonl and is not repeated (remove its line to repeat it). The
table is printed; that of all models goes to docs/results/forecasters.md as well. Settings are the papers', or those of
the authors' scripts; where a two-core CPU needs a smaller model the note says so. The test rows are scored once, with
the weights of the best validation.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch

from runnel import catalog
from runnel.forecast import protocol
from runnel.forecasters import (
    ar_net,
    auto_arima,
    auto_ets,
    autoformer,
    autotimes,
    dlinear,
    informer,
    itransformer,
    last_value,
    ls4,
    mamba_mixer,
    patchtst,
    ridge,
    s_mamba,
    seasonal_naive,
    spacetime,
    tide,
    time_moe,
    tsmixer,
    ttm,
    xlstmtime,
)
from runnel.storage import read_lines, remembered
from runnel.windows import FitConfig, build

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "results" / "forecasters.md"
HORIZON = 96
TOLERANCE = 0.05
"""How far above the published squared error a model may be and still count as landed."""
TABLE_10 = "iTransformer's table 10"
SMALLER = "smaller than the paper's (width 512, perceptrons 2,048), to train on two cores"


@dataclass(frozen=True)
class Entry:
    """A model, what it is trained with, and what was published for it. name: what --models calls it.

    calendar: hour, weekday and so on are covariates known ahead. every: one test window of so many is forecast.
    """

    name: str
    config: Any
    fit: FitConfig = field(default_factory=FitConfig)
    history: int = 96
    mse: float | None = None
    mae: float | None = None
    source: str = ""
    note: str = ""
    calendar: bool = False
    every: int = 1


def fit(lr: float, batch_size: int, epochs: int, history: int = 96, loss: str = "mse") -> FitConfig:
    """So many passes over the train windows; a validation every half of one, patience of three passes."""
    per_epoch = (8640 - history - HORIZON + 1) // batch_size
    half = max(1, per_epoch // 2)
    return FitConfig(loss, lr, batch_size, epochs * per_epoch, valid_every=half, patience=6, valid_windows=1 << 20)


NONE = "no published figure for L = 96 on all seven channels"
ENTRIES = (
    Entry("last_value", last_value.Config(), mse=1.294, mae=0.713, source="DLinear's repeat baseline"),
    Entry("seasonal_naive", seasonal_naive.Config(), mse=0.512, mae=0.433, source="closed form"),
    Entry("ridge", ridge.Config(), note="lambda and anchor by validation"),
    Entry("dlinear", dlinear.Config(), fit(5e-3, 32, 10), mse=0.386, mae=0.400, source=TABLE_10),
    Entry("dlinear_336", dlinear.Config(), fit(5e-3, 32, 10, 336), 336, 0.375, 0.399, "its paper"),
    Entry("nlinear", dlinear.Config(kernel=None, norm="last"), fit(5e-3, 32, 10), note=NONE),
    Entry("ar_net", ar_net.Config(), fit(1e-3, 32, 10), note=f"{NONE}; trained one step ahead, fed back 96 times"),
    Entry(
        "patchtst",
        patchtst.Config(),
        fit(1e-4, 32, 40),
        mse=0.414,
        mae=0.419,
        source=TABLE_10,
        note="the size is that of its own paper for this set, which has L = 336 and 512",
    ),
    Entry("patchtst_512", patchtst.Config(), fit(1e-4, 128, 100, 512), 512, 0.370, 0.400, "its paper, PatchTST/64"),
    Entry("itransformer", itransformer.Config(), fit(1e-4, 32, 10), mse=0.386, mae=0.405, source="its paper"),
    Entry("s_mamba", s_mamba.Config(), fit(7e-5, 32, 10), mse=0.386, mae=0.405, source="its paper"),
    Entry(
        "tide",
        tide.Config(),
        fit(3.8e-4, 64, 40),
        mse=0.479,
        mae=0.464,
        source=TABLE_10,
        note="its own paper has L = 720, larger batches and a smaller rate",
    ),
    Entry(
        "autoformer",
        autoformer.Config(d_model=128, hidden=512),
        fit(1e-4, 32, 10),
        mse=0.449,
        mae=0.459,
        source="its paper",
        note=SMALLER,
        calendar=True,
    ),
    Entry(
        "informer",
        informer.Config(d_model=128, hidden=512),
        fit(1e-4, 32, 6),
        mse=0.865,
        mae=0.713,
        source="Autoformer's protocol",
        note=SMALLER,
        calendar=True,
    ),
    Entry("tsmixer", tsmixer.Config(patch=8, stride=8), fit(1e-3, 64, 30), note=f"{NONE} (the paper has L = 512)"),
    Entry("ttm", ttm.Config(patch=8), fit(1e-3, 64, 30), note=f"{NONE}; not pretrained, which is the paper's point"),
    Entry("spacetime", spacetime.Config(), fit(1e-3, 50, 30), note=f"{NONE} (the paper has one channel)"),
    Entry("xlstmtime", xlstmtime.Config(), fit(1e-4, 32, 30, loss="mae"), note=f"{NONE} (the paper has L = 512)"),
    Entry("mamba_mixer", mamba_mixer.Config(), fit(1e-3, 32, 20), note=NONE),
    Entry("time_moe", time_moe.Config(), fit(1e-3, 32, 10), note=f"{NONE}; not pretrained, which is the paper's point"),
    Entry("autotimes", autotimes.Config(), fit(5e-4, 32, 20), note=f"{NONE}; a small trained trunk, no language model"),
    Entry("ls4", ls4.Config(), fit(1e-3, 64, 20), note=f"{NONE}; the mean of 16 sample paths"),
    Entry("auto_ets", auto_ets.Config(), history=240, note=f"{NONE}; fitted anew to every window", every=24),
    Entry(
        "auto_arima", auto_arima.Config(largest=2), history=240, note=f"{NONE}; as auto_ets; orders up to 2", every=240
    ),
)


def perform(entry: Entry, data: protocol.Benchmark, seconds: float, seed: int) -> dict[str, Any]:
    """Train on the train rows, keep the best of validation, score the test rows; a JSON-able record."""
    data = data.with_calendar() if entry.calendar else data
    shape = data.shape(entry.history, HORIZON)
    model = build(entry.config, shape, seed=seed)
    config = FitConfig(**{**asdict(entry.fit), "seconds": seconds, "seed": seed})
    report = model.fit(data.train(shape), data.valid(shape), config, partial(_progress, entry.name))
    score = protocol.evaluate(model.eval(), data.test(shape).every(entry.every))
    return {
        "parameters": sum(p.numel() for p in model.parameters()),
        "mse": score.mse,
        "mae": score.mae,
        "windows": score.windows,
        "valid": report.valid_loss if report.valid_loss == report.valid_loss else None,
        "steps": report.steps,
        "spent": report.seconds,
        "ended": _ended(report.steps, report.seconds, config),
    }


def key(entry: Entry, data: protocol.Benchmark, seconds: float, seed: int) -> dict[str, Any]:
    """What a run was told, as JSON has it; what is expected of it does not belong to it."""
    told = {
        "model": catalog.page_name(entry.config),
        "config": asdict(entry.config),
        "fit": asdict(entry.fit),
        "history": entry.history,
        "calendar": entry.calendar,
        "every": entry.every,
        "horizon": HORIZON,
        "data": data.name,
        "seconds": seconds,
        "seed": seed,
    }
    found: dict[str, Any] = json.loads(json.dumps(told))
    return found


def _ended(steps: int, seconds: float, config: FitConfig) -> str:
    if steps == 0:
        return "closed form"
    if steps >= config.steps:
        return "steps"
    return "time" if config.seconds is not None and seconds > config.seconds else "patience"


def _progress(name: str, done: float, text: str) -> None:
    print(f"{name:16} {done:4.0%}  {text}", flush=True)


def table(results: Sequence[tuple[Entry, dict[str, Any]]]) -> str:
    """Markdown, a row a model; landed: the squared error is at most 5% above the published one."""
    numbers = ["L", "parameters", "windows", "MSE", "MAE", "published", "of", "landed", "steps", "seconds", "ended by"]
    head = ["model", *numbers, "note"]
    lines = [head, ["---"] * len(head)]
    for entry, found in results:
        published = "" if entry.mse is None else f"{entry.mse:.3f} / {entry.mae:.3f}"
        landed = "" if entry.mse is None else ("yes" if found["mse"] <= entry.mse * (1 + TOLERANCE) else "**no**")
        counts = [f"{found[name]:,}" for name in ("parameters", "windows")]
        numbers = [*counts, f"{found['mse']:.3f}", f"{found['mae']:.3f}"]
        ending = [f"{found['steps']:,}", f"{found['spent']:.0f}", found["ended"]]
        cells = [f"`{entry.name}`", str(entry.history), *numbers, published, entry.source, landed, *ending, entry.note]
        lines.append(cells)
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def page(results: Sequence[tuple[Entry, dict[str, Any]]], seconds: float, seed: int) -> str:
    """The table with what is to be known about it."""
    windows, named = results[0][1]["windows"], {entry.name for entry, _ in results}
    lacking = ", ".join(f"`{entry.name}`" for entry in ENTRIES if entry.name not in named)
    return f"""# Models of windows by name, on ETTh1

Made by `python recipes/forecasters.py ETTh1.csv`. Horizon {HORIZON}, {windows:,} test windows, all seven channels,
standardised by the train rows; seed {seed}; at most {seconds:g} seconds of training each. All are trained by one loop
(AdamW, a rate that falls along a cosine, the weights of the best validation), where the papers' scripts mostly halve
the rate every pass. *Landed* means a squared error of at most 5% above the published one. Fewer windows: one of so
many was forecast, evenly spaced. Seconds are those of the machine as it was, which may have had other work.

{table(results)}

{f"Not run yet: {lacking}." if lacking else "All of them have been run."} There is no page for TimesNet (.384/.402).
"""


def chosen(names: str | None) -> list[Entry]:
    """The entries that are meant. ValueError when there is none of a name."""
    by_name = {entry.name: entry for entry in ENTRIES}
    wanted = list(by_name) if names is None else names.split(",")
    for name in wanted:
        if name not in by_name:
            raise ValueError(f"no entry is called {name!r}{catalog.suggest(name, tuple(by_name))}")
    return [by_name[name] for name in wanted]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", help="ETTh1.csv, or another file of its kind")
    parser.add_argument("--models", help="names, with commas; all of them when left out")
    parser.add_argument("--known", action="store_true", help="run nothing: a page of what has been run")
    parser.add_argument("--seconds", type=float, default=3600.0, help="training time of each, at most")
    parser.add_argument("--seed", type=int, default=0, help="of the weights and of the order of windows")
    parser.add_argument("--threads", type=int, default=2, help="of PyTorch")
    parser.add_argument("--folder", type=Path, default=Path("runs/forecasters"), help="where records are kept")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    data, results, runs = protocol.read(options.data), [], options.folder / "runs.jsonl"
    for entry in chosen(options.models):
        told = (entry, data, options.seconds, options.seed)
        if options.known:
            found = remembered_already(runs, key(*told))
        else:
            found = remembered(runs, key(*told), partial(perform, *told))
        if found is not None:
            results.append((entry, found))
    print(table(results))
    if options.models is None:
        PAGE.write_text(page(results, options.seconds, options.seed), encoding="utf-8")


def remembered_already(path: Path, key: dict[str, Any]) -> dict[str, Any] | None:
    """The line of a run that has ended; None where there is none."""
    return next((line for line in read_lines(path) if key.items() <= line.items()), None)


if __name__ == "__main__":
    main()
