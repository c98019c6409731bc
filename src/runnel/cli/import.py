"""`runnel import`: a checkpoint of another library becomes a run of this one."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from runnel.cli import _screen


def command(
    folder: Annotated[Path, typer.Argument(help="A folder in the Hugging Face layout.")],
    out: Annotated[Path, typer.Argument(help="The folder to make.")],
    json: Annotated[bool, typer.Option("--json", help="Print what was imported as JSON.")] = False,
) -> None:
    """Read a checkpoint in the Hugging Face layout: config.json, safetensors, tokenizer.json.

    \b
    Example:
        runnel import Qwen3-0.6B runs/qwen3
    \b
    What is made is an ordinary run: generate, score, bench and serve take it. `runnel export` writes it back.
    """
    from runnel import interop

    with _screen.working(f"reading {folder}"):
        run = interop.import_run(folder, out)
    config = run.model.config
    facts = {
        "pattern": config.pattern,
        "d_model": config.d_model,
        "vocab_size": config.vocab_size,
        "parameters": sum(p.numel() for p in run.model.parameters()),
        "tokenizer": run.codec is not None,
    }
    if json:
        _screen.print_json(facts)
        return
    print(f"{out}: {facts['parameters']:,} parameters, {config.pattern}")
    if run.codec is None:
        print(f"{folder} has no tokenizer.json, so that only token ids can be read")
