"""`runnel probe`: who reads whom in a trained model."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from runnel.cli import _screen
from runnel.cli.generate import load_run

if TYPE_CHECKING:
    from runnel.probe import LayerMap

LONGEST = 128


def command(
    run: Annotated[Path, typer.Argument(help="The folder of a trained model.")],
    text: Annotated[str, typer.Argument(help="What the model reads.")],
    out: Annotated[Path, typer.Option(help="Where the picture goes, as PNG.")] = Path("probe.png"),
    json: Annotated[bool, typer.Option("--json", help="Print the maps as JSON.")] = False,
) -> None:
    """Show, layer by layer, from where every token takes what it reads.

    \b
    Example (after `runnel demo`):
        runnel probe runs/demo "def close(self): self.file.close()"
    \b
    Maps are exact where a mixer's values go through one linear primitive (attention,
    linear recurrences); of other mixers they are the size of the Jacobian's blocks.
    """
    import torch

    from runnel import codecs, probe

    model, codec = load_run(run), codecs.load(run)
    tokens = codec.begin(text)
    if not 2 <= len(tokens) <= LONGEST:
        raise ValueError(f"the text must be 2 to {LONGEST} tokens long; got {len(tokens)}")
    maps: list[LayerMap] = []
    with _screen.bar("probing") as bar:
        for found in probe.layer_maps(model, torch.tensor(tokens)):
            maps.append(found)
            bar.update(len(maps) / len(model.mixers), found.mixer)
    labels = [_screen.printable(codec.decode([token])).strip() for token in tokens]
    probe.draw(maps, labels, out)
    if json:
        _screen.print_json({"tokens": tokens, "layers": [_described(found) for found in maps]})
        return
    head = ["layer", "mixer", "map", "reads itself", "reaches back"]
    print("\n".join(_screen.columns([head, *(_row(found) for found in maps)])))
    print(f"the maps are drawn in {out}")


def _row(found: LayerMap) -> list[str]:
    kind = "by the Jacobian" if found.primitive is None else f"exact, of {found.primitive}"
    return [str(found.layer), found.mixer, kind, f"{found.to_itself:.0%}", f"{found.reach:.1f} tokens"]


def _described(found: LayerMap) -> dict[str, object]:
    return {
        "layer": found.layer,
        "mixer": found.mixer,
        "primitive": found.primitive,
        "to_itself": found.to_itself,
        "reach": found.reach,
        "weights": found.weights.tolist(),
    }
