"""`runnel serve`: an OpenAI-compatible server for a trained model."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Annotated

import typer

from runnel.cli import _screen, _training


def command(
    run: Annotated[Path, typer.Argument(help="The folder of a trained model.")],
    host: Annotated[str, typer.Option(help="The address to listen at.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="0: any that is free.")] = 8000,
    name: Annotated[str | None, typer.Option(help="What clients call the model. (default: the folder's name)")] = None,
    weights: Annotated[
        str | None, typer.Option(help="Native engine: f32 (default), bf16, int8 or int4; or torch.")
    ] = None,
    eos: Annotated[list[int] | None, typer.Option(help="A token that ends a text; may be given again.")] = None,
    drafter: Annotated[str, typer.Option(help="Unless a request names one: none, auto, suffix, prompt_lookup.")] = (
        "auto"
    ),
    keys: Annotated[Path | None, typer.Option(help="A file of API keys; without it everybody may ask.")] = None,
    add_key: Annotated[
        str | None, typer.Option(help="Make a key for this name, note its hash in --keys, print it, and end.")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Listen at a public address without keys.")] = False,
    rows: Annotated[int, typer.Option(help="Texts that are written side by side.")] = 64,
    state_memory: Annotated[int, typer.Option(help="Megabytes of the states of what is being written.")] = 1024,
    queue: Annotated[int, typer.Option(help="Requests that may wait; more are refused with 429.")] = 256,
    states: Annotated[
        Path | None, typer.Option(help="The folder of kept states. (default: one that is deleted at the end)")
    ] = None,
    memory: Annotated[int, typer.Option(help="Megabytes of kept states in memory; the others are on disk.")] = 256,
    disk: Annotated[int, typer.Option(help="Megabytes of kept states on disk.")] = 4096,
    stride: Annotated[int, typer.Option(help="Tokens between kept states of a prompt; 0 keeps none.")] = 256,
    chunk: Annotated[int, typer.Option(help="Tokens of prompts that are read between two rounds.")] = 128,
    max_tokens: Annotated[int, typer.Option(help="Most tokens that a request may ask for.")] = 32768,
    deadline: Annotated[float, typer.Option(help="Seconds that a request may take.")] = 600.0,
    drain: Annotated[int, typer.Option(help="Seconds that what runs may still take after SIGTERM.")] = 30,
    replicas: Annotated[int, typer.Option(help="Servers side by side behind one address.")] = 1,
    threads: Annotated[int | None, typer.Option(help="CPU threads.")] = None,
    json: Annotated[bool, typer.Option("--json", help="Print the address as JSON when it is ready.")] = False,
) -> None:
    """Serve a trained model over HTTP, as OpenAI's API does.

    \b
    Example (after `runnel demo`, needs `pip install 'runnel[serve]'`):
        runnel serve runs/demo --port 8000
    \b
    Then, for instance:
        curl http://127.0.0.1:8000/v1/completions -H "Content-Type: application/json" \\
            -d '{"prompt": "def main(", "max_tokens": 60}'
    \b
    Stops at Ctrl-C or SIGTERM once what runs is finished. See docs/serving.md.
    """
    _require()
    from runnel.serve import keys as key_files
    from runnel.serve.engine import Limits
    from runnel.serve.server import Settings, serve
    from runnel.serve.store import Budget

    if add_key is not None:
        if keys is None:
            raise ValueError("--add-key needs the file of keys: --keys FILE")
        print(key_files.add(keys, add_key))
        return
    _training.set_threads(threads)
    counts = {"--rows": rows, "--state-memory": state_memory, "--queue": queue, "--chunk": chunk}
    for option, value in {**counts, "--replicas": replicas}.items():
        if value < 1:
            raise ValueError(f"{option} must be at least 1; got {value}")
    limits = Limits.asked(rows, state_memory, queue, chunk, keys)
    temporary = tempfile.TemporaryDirectory(prefix="runnel-states-")
    settings = Settings(
        run=run,
        states=states or Path(temporary.name),
        name=name,
        host=host,
        port=port,
        weights=weights,
        eos=tuple(eos or ()),
        drafter=drafter,
        keys=keys,
        force=force,
        limits=limits,
        max_tokens=max_tokens,
        deadline=deadline,
        budget=Budget(memory << 20, disk << 20),
        stride=stride,
        drain=drain,
    )

    def ready(address: str) -> None:
        if json:
            _screen.print_json({"address": address, "pid": os.getpid()})
        else:
            print(f"serving {run} at {address}", flush=True)

    with temporary:
        if replicas > 1:
            from runnel.serve import replicas as several

            several.serve(settings, replicas, ready)
        else:
            serve(settings, ready)


def _require() -> None:
    try:
        import fastapi  # noqa: F401
        import uvicorn  # noqa: F401
    except ModuleNotFoundError:
        raise ValueError("runnel serve needs more packages: pip install 'runnel[serve]'") from None
