"""`runnel export`: a run becomes a checkpoint of another library."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from runnel.cli import _screen


def command(
    run: Annotated[Path, typer.Argument(help="The folder of a model that was imported.")],
    out: Annotated[Path, typer.Argument(help="The folder to make.")],
    json: Annotated[bool, typer.Option("--json", help="Print what was written as JSON.")] = False,
) -> None:
    """Write a run in the Hugging Face layout that it came in: transformers loads it.

    \b
    Example:
        runnel export runs/qwen3 Qwen3-tuned
    """
    from runnel import interop

    with _screen.working(f"writing {out}"):
        interop.export_run(run, out)
    files = sorted(path.name for path in out.iterdir())
    if json:
        _screen.print_json({"folder": str(out), "files": files})
    else:
        print(f"{out}: {', '.join(files)}")
