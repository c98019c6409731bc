"""`runnel export`: a run becomes a checkpoint of another library, or a file of llama.cpp."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from runnel.cli import _screen


def command(
    run: Annotated[Path, typer.Argument(help="The folder of a model that was imported.")],
    out: Annotated[Path, typer.Argument(help="The folder to make, or a file NAME.gguf.")],
    json: Annotated[bool, typer.Option("--json", help="Print what was written as JSON.")] = False,
) -> None:
    """Write a run in the Hugging Face layout that it came in: transformers loads it.

    \b
    Example:
        runnel export runs/qwen3 Qwen3-tuned
        runnel export runs/qwen3 qwen3-tuned.gguf
    \b
    What llama.cpp runs as it is can be written as a GGUF file, which its tools quantise.
    """
    from runnel import interop

    with _screen.working(f"writing {out}"):
        if out.suffix == ".gguf":
            from runnel.interop import gguf

            gguf.write_run(run, out)
        else:
            interop.export_run(run, out)
    files = [out.name] if out.is_file() else sorted(path.name for path in out.iterdir())
    if json:
        _screen.print_json({"folder": str(out), "files": files})
    else:
        print(f"{out}: {', '.join(files)}")
