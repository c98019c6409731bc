"""`runnel convert`: attention layers become recurrent ones, learn from what they replace; what is lost is printed."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from runnel.cli import _screen, _training

if TYPE_CHECKING:
    from runnel.codecs import Codec
    from runnel.convert import Gap
    from runnel.data import Source

TEACHING = "Teaching"


def _option(help: str) -> Any:
    return typer.Option(help=help, rich_help_panel=TEACHING, show_default=True)


def command(
    folder: Annotated[Path, typer.Argument(help="A run, or a folder in the Hugging Face layout.")],
    out: Annotated[Path, typer.Argument(help="Folder of the converted model.")],
    to: Annotated[str, typer.Option(help='What attention becomes: "gla", "mamba2(conv=2)"; see `runnel methods`.')],
    keep: Annotated[str, typer.Option(help="Share of the attention layers that stay, evenly spaced.")] = "1/4",
    data: Annotated[str | None, _option("A file, a folder or a generator to teach with.")] = None,
    length: Annotated[int, _option("Tokens in a row.")] = 256,
    batch: Annotated[int, _option("Rows in a batch.")] = 8,
    transfer_steps: Annotated[int, _option("Steps in which each layer alone learns what its origin wrote.")] = 100,
    steps: Annotated[int, _option("Steps in which all of them learn the teacher's laws.")] = 200,
    lr: Annotated[float, _option("Peak learning rate.")] = 1e-3,
    recall: Annotated[str, _option("Associative recall that is asked before and after.")] = "recall:pairs=4,vocab=64",
    seed: Annotated[int, _option("Of new weights and of the order of the data.")] = 0,
    threads: Annotated[int | None, _option("CPU threads.")] = None,
    json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Convert attention layers into recurrent ones: a state of constant size instead of a memory of all tokens.

    \b
    Example:
        python3 -c "import this" > zen.txt
        runnel train zen.txt --model "attention*4" --d-model 32 --length 32 --steps 60
        runnel convert runs/zen runs/gla --to gla --data zen.txt --length 32 --steps 50
        runnel generate runs/gla --prompt "Beautiful is" --max-tokens 20
    \b
    Weights are copied and derived, the new layers alone are trained; without --data they are not.
    What is made is an ordinary run. The same command again goes on. A result can be converted further.
    """
    from runnel import convert
    from runnel.model import save

    _training.set_threads(threads)
    with _screen.working(f"reading {folder}"):
        teacher, codec = convert.read(folder)
    pupil = convert.begin(teacher, to, keep, seed)
    source = None if data is None else _open(data, codec, length, batch, seed, out / "spool")
    convert.claim(out, teacher, to, keep, seed)
    if source is None:
        save(pupil, out)
        if codec is not None:
            codec.save(out)
    with _screen.working("measuring"):
        gaps = {"teacher": convert.Gap.of(teacher, source, recall), "before": convert.Gap.of(pupil, source, recall)}
    if source is not None:
        for stage in convert.stages(transfer_steps, steps, lr=lr, seed=seed):
            _training.fit(pupil, source, out / stage.folder, stage.config, {}, stage.title)
        gaps["after"] = convert.Gap.of(pupil.eval(), source, recall)
    report(out, pupil.config.pattern, len(pupil.replaced), gaps, json)


def _open(data: str, codec: Codec | None, length: int, batch: int, seed: int, spool: Path) -> Source:
    """The data in the tokens of the teacher."""
    from runnel.codecs.bytes import Bytes
    from runnel.data import open_source, text

    source = open_source(data, codec or Bytes(), length, batch, seed, spool)
    if codec is None and isinstance(source, text.Source):
        raise ValueError(f"the model has no tokenizer, so it cannot read {data}: give a generator of tokens")
    return source


def report(out: Path, pattern: str, replaced: int, gaps: dict[str, Gap], json: bool) -> None:
    """One line for each of teacher, before and after."""
    if json:
        rows = {name: {"bits": g.bits, "perplexity": g.perplexity, "recall": g.recall} for name, g in gaps.items()}
        _screen.print_json({"folder": str(out), "pattern": pattern, "replaced": replaced, "gap": rows})
        return
    print(f"{out}: {replaced} layers replaced, {pattern}")
    names = {"teacher": "teacher", "before": "converted, before training", "after": "converted, after training"}
    for name, gap in gaps.items():
        parts = [
            *([] if gap.bits is None else [f"{gap.bits:.3f} bits per token, perplexity {gap.perplexity:.2f}"]),
            *([] if gap.recall is None else [f"recall {gap.recall:.3f}"]),
        ]
        print(f"{names[name]}: {'; '.join(parts) or 'nothing to measure it by'}")
