"""`runnel bench`: measurements of a trained model on this machine, and the standard table of forecasting."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from runnel.cli import _forecasting, _screen, _training
from runnel.cli.generate import drafter_of, load_run, packed

if TYPE_CHECKING:
    from runnel.bench.decode import Line

DRAFTERS = ("auto", "suffix", "prompt_lookup", "token_recycling", "adaptive", "lookahead", "jacobi")
WHAT = ("decode", "forecast")


def command(
    what: Annotated[
        str,
        typer.Argument(help="decode: drafters beside plain decoding. forecast: the standard table of a series file."),
    ],
    run: Annotated[str, typer.Argument(help="The folder of a trained model; for forecast a CSV file or its URL.")],
    drafter: Annotated[
        list[str] | None,
        typer.Option(
            help="Instead of all that need no training: a name with options, or a folder; may be given again."
        ),
    ] = None,
    tokens: Annotated[int, typer.Option(help="Tokens to write after every prompt.")] = 256,
    repeats: Annotated[int, typer.Option(help="Interleaved repeats, after one that warms up.")] = 7,
    temperature: Annotated[float, typer.Option(help="0 is greedy.")] = 0.0,
    weights: Annotated[
        str | None, typer.Option(help="By the native engine, with weights as f32, bf16, int8 or int4.")
    ] = None,
    model: Annotated[
        list[str] | None, typer.Option(help="forecast: a model by name, or a pattern; may be given again.")
    ] = None,
    horizon: Annotated[list[int] | None, typer.Option(help="forecast: steps ahead; may be given again.")] = None,
    lookback: Annotated[list[int] | None, typer.Option(help="forecast: rows of history; may be given again.")] = None,
    seeds: Annotated[int, typer.Option(help="forecast: fits of every trained model.")] = 1,
    budget: Annotated[float, typer.Option(help="forecast: seconds that auto may take.")] = 300.0,
    threads: Annotated[int | None, typer.Option(help="CPU threads.")] = None,
    json: Annotated[bool, typer.Option("--json", help="Print the numbers as JSON.")] = False,
) -> None:
    """Measure a trained model: how fast it decodes. Or forecasters: the standard table.

    \b
    Examples (the first after `runnel demo`, the second with a file of the ETT kind):
        runnel bench decode runs/demo --tokens 64 --repeats 3
        runnel bench forecast ETTh1.csv --model ridge --model auto --horizon 96
    \b
    Speed-ups are medians of ratios to plain decoding of the same model in the same
    process, prompt by prompt. tokens/call: tokens that one call of the model gives.
    v(m): what verifying and committing m tokens costs, in plain steps.
    """
    if what not in WHAT:
        raise ValueError(f"bench measures {', '.join(WHAT)}; got {what!r}")
    if what == "forecast":
        _training.set_threads(threads)
        _forecasting.standard_table(run, model, horizon, lookback, seeds, budget, json)
        return
    if tokens < 1 or repeats < 1:
        raise ValueError(f"--tokens and --repeats must be at least 1; got {tokens} and {repeats}")
    from runnel import codecs
    from runnel.bench import decode

    _training.set_threads(threads)
    folder = Path(run)
    target, codec = load_run(folder), codecs.load(folder)
    drafters = {text: drafter_of(text, target) for text in drafter or DRAFTERS}
    engine = packed(target, weights)
    with _screen.bar("measuring") as bar:
        curve = decode.verify_curve(engine)
        lines = list(decode.measure(engine, codec, drafters, tokens, repeats, temperature, bar.update))
        bar.update(1.0, "done")
    if json:
        _screen.print_json({"verify": curve, "lines": [asdict(line) for line in lines]})
    else:
        _print(lines, curve)


def _print(lines: list[Line], curve: dict[int, float]) -> None:
    for kind in dict.fromkeys(line.kind for line in lines):
        _screen.heading(kind)
        head = ["drafter", "speed-up", "tokens/s", "tokens/call", "drafting", "text"]
        print("\n".join(_screen.columns([head, *(_row(line) for line in lines if line.kind == kind)])))
    _screen.heading("verification")
    print("  ".join(f"v({size}) {cost:.2f}" for size, cost in curve.items()))


def _row(line: Line) -> list[Any]:
    return [
        line.drafter,
        f"{line.speedup:.2f}x",
        f"{line.tokens_per_second:,.0f}",
        f"{line.tokens_per_call:.2f}",
        f"{line.draft_share:.0%}",
        "same" if line.same_text else "differs",
    ]
