"""Does every mixer learn? A byte model of about a million parameters each, five CPU minutes each, against n-grams.

    python recipes/learning.py tinyshakespeare.txt            trains all nine, two at a time, one thread each
    python recipes/learning.py tinyshakespeare.txt --only gla,mamba

The last tenth of the file is held out. A run that was interrupted goes on; one that has ended is not repeated (remove
its folder to repeat it). The table goes to docs/results.md, between the `learning` markers.
"""

from __future__ import annotations

import argparse
import multiprocessing
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import torch

import runnel
from runnel import catalog, train
from runnel.codecs.bytes import Bytes
from runnel.data import open_source, text
from runnel.data.baselines import ngram
from runnel.storage import read_json, write_json

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "docs" / "results.md"
D_MODEL, LENGTH, BATCH = 128, 256, 8
SMALL = ("attention", "gla", "linear_attention", "mingru")
"""Mixers with fewer parameters a layer get five layers instead of four, so that all have about a million."""


def run(name: str, data: str, folder: str, seconds: float) -> dict[str, Any]:
    """Train one mixer on one thread and note what came of it."""
    torch.set_num_threads(1)
    done = Path(folder) / name / "learning.json"
    if done.is_file():
        return read_json(done)
    model = runnel.build(name, vocab_size=256, d_model=D_MODEL, n_layers=5 if name in SMALL else 4)
    source = open_source(data, Bytes(), length=LENGTH, batch_size=BATCH, valid_fraction=0.1)
    config = train.TrainConfig(
        budget=seconds, lr=1e-2, optimizer="muon", schedule="wsd", cooldown=0.4, valid_every=None
    )
    started = time.process_time()
    result = train.fit(model, source, Path(folder) / name, config, on_step=progress(name))
    found = {
        "mixer": name,
        "parameters": sum(p.numel() for p in model.parameters()),
        "tokens": result.tokens,
        "seconds": result.seconds,
        "cpu_seconds": time.process_time() - started,
        "bits_per_byte": result.valid_bits_per_byte,
        "state_bytes": model(torch.zeros(1, 1000, dtype=torch.long))[1].nbytes,
    }
    write_json(done, found)
    return found


def progress(name: str) -> Callable[[train.StepReport], None]:
    """A line every hundred steps."""

    def report(step: train.StepReport) -> None:
        if step.step % 100 == 0:
            print(f"{name:18} {step.progress:4.0%}  {step.bits_per_byte:.3f} bits per byte", flush=True)

    return report


def table(runs: list[dict[str, Any]], grams: list[float]) -> str:
    """Markdown, best first, the n-gram rows among the models."""
    rows = [
        (
            r["bits_per_byte"],
            f"| {r['mixer']} | {r['parameters'] / 1e6:.2f} M | {r['tokens'] / 1e6:.2f} M | {r['seconds']:.0f} "
            f"| {r['cpu_seconds']:.0f} | {r['tokens'] / r['seconds']:,.0f} | {r['state_bytes'] / 1024:,.0f} KiB "
            f"| **{r['bits_per_byte']:.3f}** |",
        )
        for r in runs
    ]
    names = {1: "unigram", **{n: f"order-{n} n-gram" for n in (3, 4, 5)}}
    rows += [(grams[n], f"| *{name}* | | | | | | | *{grams[n]:.3f}* |") for n, name in names.items()]
    head = (
        "| model | parameters | tokens read | seconds, final validation included | CPU seconds | tokens/s "
        "| state after 1,000 tokens | bits per byte, held out |\n|---|---|---|---|---|---|---|---|"
    )
    return "\n".join([head, *[row for _, row in sorted(rows)]])


def write_section(marker: str, text: str) -> None:
    """Replace what stands between the markers in docs/results.md."""
    page = RESULTS.read_text(encoding="utf-8")
    begin, end = f"<!-- {marker} -->", f"<!-- /{marker} -->"
    before, _, rest = page.partition(begin)
    _, _, after = rest.partition(end)
    RESULTS.write_text(f"{before}{begin}\n{text}\n{end}{after}", encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", help="a text file; docs/results.md was made with tinyshakespeare.txt")
    parser.add_argument("--only", help="names of mixers, with commas")
    parser.add_argument("--seconds", type=float, default=300.0, help="training time of each")
    parser.add_argument("--folder", default="runs/learning", help="where runs are kept")
    parser.add_argument("--jobs", type=int, default=2, help="runs at a time")
    options = parser.parse_args()
    names = options.only.split(",") if options.only else list(catalog.names("mixers"))
    with ProcessPoolExecutor(options.jobs, multiprocessing.get_context("spawn")) as pool:
        jobs = [pool.submit(run, name, options.data, options.folder, options.seconds) for name in names]
        runs = [job.result() for job in jobs]
    source = open_source(options.data, Bytes(), length=LENGTH, batch_size=BATCH, valid_fraction=0.1)
    assert isinstance(source, text.Source)
    train_part, held_out = source.sample(limit=1 << 40)
    result = table(runs, ngram.bits_per_byte(train_part, held_out, order=5))
    print(result)
    if not options.only:
        write_section("learning", result)


if __name__ == "__main__":
    main()
