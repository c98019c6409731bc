"""metrics.jsonl: one line a step and one a validation, flushed as written; TensorBoard beside it when asked for.

| key | meaning |
|---|---|
| split | "train" or "valid" |
| step, tokens, seconds | steps done, targets learned from, seconds of training, all since step 0 |
| loss | nats per target; for "valid" the mean over all held-out targets |
| bits_per_token, bits_per_byte | the loss in bits; per byte only where the source says how many bytes a token is |
| lr, grad_norm, tokens_per_second | of this step (grad_norm before clipping); only for "train" |

After a restart the lines of steps that the checkpoint does not know are dropped, since they will be written again.
"""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any

from runnel.storage import write_atomically

FILE = "metrics.jsonl"
SPLITS = ("train", "valid")


def read(folder: Path) -> list[dict[str, Any]]:
    """The lines of FOLDER/metrics.jsonl; one cut short at the end is left out. ValueError on any other damage."""
    path = folder / FILE
    if not path.is_file():
        return []
    lines = path.read_text(encoding="utf-8", errors="replace").split("\n")[:-1]
    return [_parse(line, f"{path} line {number}") for number, line in enumerate(lines, 1)]


class MetricsLog:
    """Appends to metrics.jsonl. step, validated: the last step and last validated step that the checkpoint knows."""

    def __init__(self, folder: Path, step: int, validated: int, tensorboard: bool) -> None:
        self.path = folder / FILE
        self.writer = _summary_writer(folder / "tensorboard", step + 1) if tensorboard else None
        last = {"train": step, "valid": validated}
        known = [line for line in read(folder) if line["step"] <= last[line["split"]]]
        text = "".join(json.dumps(line) + "\n" for line in known)
        write_atomically(self.path, lambda path: _write(path, text))
        self.file = self.path.open("a", encoding="utf-8")

    def __enter__(self) -> MetricsLog:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with suppress(OSError):  # every line was flushed; what a full disk refused was reported then
            self.file.close()
        if self.writer is not None:
            self.writer.close()

    def write(self, line: dict[str, Any]) -> None:
        """Append one line. OSError in one line when the disk is full."""
        try:
            self.file.write(json.dumps(line, allow_nan=False) + "\n")
            self.file.flush()
        except OSError as error:
            raise OSError(f"{self.path} could not be written ({error.strerror or error})") from error
        if self.writer is not None:
            for key in line.keys() - {"split", "step"}:
                self.writer.add_scalar(f"{line['split']}/{key}", line[key], line["step"])


def _parse(text: str, where: str) -> dict[str, Any]:
    try:
        line = json.loads(text)
    except ValueError:
        line = None
    if not isinstance(line, dict) or line.get("split") not in SPLITS or not isinstance(line.get("step"), int):
        raise ValueError(f"{where} must be a JSON object with split and step; got {text[:60]!r}")
    return line


def _write(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8")


def _summary_writer(folder: Path, purge_step: int) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise ValueError("tensorboard=True needs the package tensorboard: pip install tensorboard") from error
    return SummaryWriter(str(folder), purge_step=purge_step)
