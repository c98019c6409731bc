"""Claims about states, each with the control that must fail: three seeds, small models, held-out accuracy.

    python recipes/claims.py                       all claims, three seeds; a few hours on one core
    python recipes/claims.py --only parity         those whose name begins so
    python recipes/claims.py --seeds 0 --steps 50  to see that it works; docs/ then stays as it is

A run that has ended is a line of runs/claims/runs.jsonl and is not repeated (remove its line to repeat it); an
interrupted one goes on. The page goes to docs/results/claims.md. Thresholds were written down before any recorded run.
"""

from __future__ import annotations

import argparse
import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch

import runnel
from runnel import train
from runnel.codecs.bytes import Bytes
from runnel.compare import cost
from runnel.data import Source, open_source
from runnel.model import Model
from runnel.storage import remembered
from runnel.types import IGNORE, Batch

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "results" / "claims.md"
SEEDS = (0, 1, 2)


@dataclass(frozen=True)
class Side:
    """A model on a source. twice: every row is read two times, and asked only the second time.

    random_poles: of S4D, drawn at the start from a law that knows nothing of memory.
    """

    pattern: str
    source: str
    length: int
    steps: int = 1500
    lr: float = 5e-3
    d_model: int = 32
    twice: bool = False
    random_poles: bool = False


@dataclass(frozen=True)
class Claim:
    """Every seed of `holds` reaches `solved` at `multiple` times the training length, none of `control` `failed`."""

    name: str
    says: str
    holds: Side
    control: Side
    solved: float
    failed: float
    multiple: int = 1


def _versus(name: str, says: str, source: str, length: int, pair: tuple[str, str], **rest: Any) -> Claim:
    """Two models under the same terms."""
    bounds = {key: rest.pop(key) for key in ("solved", "failed", "multiple") if key in rest}
    holds, control = (Side(pattern, source, length, **rest) for pattern in pair)
    return Claim(name, says, holds, control, **bounds)


PARITY = {"solved": 0.95, "failed": 0.65, "multiple": 4, "steps": 800, "lr": 1e-2}
COUNTING = {"solved": 0.9, "failed": 0.6, "multiple": 4, "steps": 1500, "lr": 1e-2}
NEEDLES = "needle:needles=8,keys=16,values=16,filler=4"
CLAIMS = (
    _versus(
        "parity: negative eigenvalues",
        "A delta rule with eigenvalues in (-1, 1) tracks parity beyond its training length, one in (0, 1) does not.",
        "parity",
        40,
        ("deltanet(beta_max=2.0, head_dim=16, conv=1)", "deltanet(beta_max=1.0, head_dim=16, conv=1)"),
        **PARITY,
    ),
    _versus(
        "parity: the split of xLSTM",
        "sLSTM, whose recurrence is nonlinear, tracks parity; mLSTM, whose is not, does not.",
        "parity",
        40,
        ("slstm(conv=1)", "mlstm(conv=1)"),
        **PARITY,
    ),
    _versus(
        "counting modulo 3: nonlinear cells",
        "A GRU counts modulo 3 beyond its training length, Mamba-2 does not.",
        "modular_counting:modulus=3",
        40,
        ("gru", "mamba2"),
        **COUNTING,
    ),
    _versus(
        "counting modulo 3: two reflections make a rotation",
        "Two Householder steps a token turn by a third of a circle; one step with positive eigenvalues does not.",
        "modular_counting:modulus=3",
        40,
        ("delta_product(steps=2, head_dim=16, conv=1)", "deltanet(beta_max=1.0, head_dim=16, conv=1)"),
        **COUNTING,
    ),
    _versus(
        "selective copy: gates",
        "A recurrence that chooses by content what it keeps copies symbols out of filler; one that is blind does not.",
        "selective_copy:items=6,symbols=8",
        48,
        ("mamba*2", "s4d*2"),
        solved=0.8,
        failed=0.5,
        multiple=2,
        steps=2500,
    ),
    _versus(
        "overwriting: the delta rule",
        "A memory that erases before it writes holds the last value of a key; one that only adds does not.",
        "key_overwriting:keys=4,values=8",
        44,
        ("deltanet(head_dim=16, conv=2)*2", "linear_attention(head_dim=16, conv=2)*2"),
        solved=0.9,
        failed=0.7,
        steps=600,
    ),
    Claim(
        "recall: just read twice",
        "A state too small for all pairs answers when it has read the question before it reads the pairs again.",
        Side("deltanet(head_dim=4, conv=2)*2", NEEDLES, 24, steps=2500, twice=True),
        Side("deltanet(head_dim=4, conv=2)*2", NEEDLES, 24, steps=2500),
        solved=0.6,
        failed=0.5,
    ),
    Claim(
        "long memory: HiPPO's poles",
        "A state space that begins with HiPPO's poles carries symbols over a silence; with random poles it does not.",
        Side("s4d*2", "delayed_copy:items=4,symbols=8", 256, steps=800, lr=3e-3),
        Side("s4d*2", "delayed_copy:items=4,symbols=8", 256, steps=800, lr=3e-3, random_poles=True),
        solved=0.8,
        failed=0.4,
    ),
)
WIDTHS = (4, 8, 16, 32)
CURVE = tuple(
    Side(f"({name}(head_dim={width}, conv=2))*2", "recall:pairs=8,vocab=48", 48, steps=2000)
    for name in ("linear_attention", "deltanet")
    for width in WIDTHS
)
"""Recall against bytes of state: the same models with heads of growing width."""


class Twice:
    """A source whose rows are read two times; only the second reading has targets."""

    def __init__(self, source: Source) -> None:
        self.source, self.vocab_size = source, source.vocab_size
        self.facts = {**source.facts, "twice": True}

    def batch(self, index: int) -> Batch:
        return _doubled(self.source.batch(index))

    def valid(self) -> Iterator[Batch]:
        return map(_doubled, self.source.valid())


def _doubled(batch: Batch) -> Batch:
    silent = torch.full_like(batch.targets, IGNORE)
    return Batch(torch.cat([batch.inputs, batch.inputs], dim=1), torch.cat([silent, batch.targets], dim=1))


def opened(side: Side, multiple: int, seed: int) -> Source:
    source = open_source(side.source, Bytes(), side.length * multiple, 64, seed)
    return Twice(source) if side.twice else source


def perform(side: Side, multiple: int, seed: int, folder: Path) -> dict[str, Any]:
    """Train, then score; a JSON-able record."""
    source = opened(side, 1, seed)
    model = runnel.build(side.pattern, vocab_size=source.vocab_size, d_model=side.d_model, seed=seed)
    if side.random_poles:
        _scatter_poles(model, seed)
    config = train.TrainConfig(
        steps=side.steps, lr=side.lr, weight_decay=0.0, schedule="wsd", valid_every=None, seed=seed
    )
    digest = hashlib.sha256(json.dumps([asdict(side), seed], sort_keys=True).encode()).hexdigest()[:12]
    result = train.fit(model, source, folder / digest, config)
    return {
        "accuracy": accuracy(model, opened(side, multiple, seed)),
        "state_bytes": cost.sizes(model, [side.length])[0],
        "parameters": cost.parameters(model),
        "seconds": result.seconds,
    }


@torch.no_grad()
def _scatter_poles(model: Model, seed: int) -> None:
    """Decays and frequencies of a step of length 1, both of the size of 1."""
    generator = torch.Generator().manual_seed(seed)
    for mixer in model.mixers:
        mixer.log_decay.normal_(generator=generator)
        mixer.frequency.normal_(generator=generator)


@torch.no_grad()
def accuracy(model: Model, source: Source) -> float:
    model.eval()
    right, targets = 0, 0
    for batch in source.valid():
        logits, _ = model(batch.inputs)
        right += int(((logits.argmax(-1) == batch.targets) & (batch.targets != IGNORE)).sum())
        targets += batch.n_targets
    return right / targets


def records(side: Side, multiple: int, seeds: Sequence[int], folder: Path) -> list[dict[str, Any]]:
    """One a seed, made now or before."""
    found = []
    for seed in seeds:
        key = {**asdict(side), "multiple": multiple, "seed": seed}
        make = partial(perform, side, multiple, seed, folder)
        found.append(remembered(folder / "runs.jsonl", key, make))
        print(f"{side.pattern} on {side.source}, seed {seed}: {found[-1]['accuracy']:.3f}", flush=True)
    return found


# ---- the page -----------------------------------------------------------------------------------------------------

Row = tuple[Claim, list[dict[str, Any]], list[dict[str, Any]]]


def met(row: Row) -> bool:
    claim, holds, control = row
    return min(r["accuracy"] for r in holds) >= claim.solved and max(r["accuracy"] for r in control) <= claim.failed


def table(rows: Sequence[Row]) -> str:
    """Markdown; seeds are parted by slashes."""
    head = ["claim", "model", "accuracy", "control", "its accuracy", "at", "thresholds", "met"]
    lines = [head, ["---"] * len(head)]
    for claim, holds, control in rows:
        line = [claim.name, f"`{_named(claim.holds)}`", _seeds(holds), f"`{_named(claim.control)}`", _seeds(control)]
        line += [
            f"{claim.multiple}x",
            f">= {claim.solved}, <= {claim.failed}",
            "yes" if met((claim, holds, control)) else "**no**",
        ]
        lines.append(line)
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def curve(found: Sequence[tuple[Side, list[dict[str, Any]]]]) -> str:
    lines = ["| model | bytes of state | recall |", "|---|---|---|"]
    for side, made in sorted(found, key=lambda pair: pair[1][0]["state_bytes"]):
        lines.append(f"| `{side.pattern}` | {made[0]['state_bytes']:,} | {_seeds(made)} |")
    return "\n".join(lines)


def page(rows: Sequence[Row], found: Sequence[tuple[Side, list[dict[str, Any]]]]) -> str:
    said = "\n".join(f"- **{claim.name}**: {claim.says}" for claim, _, _ in rows)
    return (
        "# Claims, with their controls\n\nMade by `recipes/claims.py`: held-out accuracy of every seed, the control "
        "beside it. `at` is the length of the scored rows over that of the training rows. A claim is met when every "
        "seed of the model is above the first threshold and every seed of the control below the second.\n\n"
        f"{said}\n\n{table(rows)}\n\n## Recall against the bytes of a state\n\n"
        f"Eight pairs, the same models with heads of growing width; in the order of their bytes.\n\n{curve(found)}\n"
    )


def _named(side: Side) -> str:
    return side.pattern + ", rows read twice" * side.twice + ", random poles" * side.random_poles


def _seeds(made: Sequence[dict[str, Any]]) -> str:
    return " / ".join(f"{record['accuracy']:.3f}" for record in made)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", default="", help="claims whose name begins so, or recall-curve; docs/ stays as it is")
    parser.add_argument("--seeds", help="numbers with commas between them, instead of three; docs/ stays as it is")
    parser.add_argument("--steps", type=int, help="at most so many steps; docs/ stays as it is")
    parser.add_argument("--folder", type=Path, default=ROOT / "runs" / "claims", help="where runs are kept")
    options = parser.parse_args()
    torch.set_num_threads(1)
    seeds = SEEDS if options.seeds is None else [int(seed) for seed in options.seeds.split(",")]

    def made(side: Side, multiple: int = 1) -> list[dict[str, Any]]:
        steps = side.steps if options.steps is None else min(side.steps, options.steps)
        return records(Side(**{**asdict(side), "steps": steps}), multiple, seeds, options.folder)

    claims = [claim for claim in CLAIMS if claim.name.startswith(options.only)]
    rows = [(claim, made(claim.holds, claim.multiple), made(claim.control, claim.multiple)) for claim in claims]
    found = [(side, made(side)) for side in CURVE if "recall-curve".startswith(options.only)]
    print(table(rows))
    print(curve(found))
    if (options.only, options.seeds, options.steps) == ("", None, None):
        PAGE.write_text(page(rows, found), encoding="utf-8")
    return 0 if all(met(row) for row in rows) else 1


if __name__ == "__main__":
    raise SystemExit(main())
