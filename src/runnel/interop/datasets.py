"""Documents of the `datasets` package, or of anything that iterates over records, as text to train on.

rows = datasets.load_from_disk("folder")["train"]
source = Source(stream(rows, "runs/x/spool"), Config(), codec, length=256, batch_size=8, spool="runs/x/spool")
runnel.train.fit(model, source, "runs/x", config)
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from runnel.data.corpus.stream import Stream
from runnel.storage import write_atomically


def stream(records: Iterable[Mapping[str, Any]], folder: str | Path, column: str = "text") -> Stream:
    """The column of every record as a document: written to `<folder>/documents.bin`, one after the other.

    Nothing but one record is held in memory. Empty documents are left out. ValueError where a record has no text there.
    """
    path, ends = Path(folder) / "documents.bin", [0]

    def write(target: Path) -> None:
        with target.open("wb") as file:
            for number, record in enumerate(records):
                content = _content(record, column, number)
                if content:
                    file.write(content)
                    ends.append(ends[-1] + len(content))

    write_atomically(path, write)
    if len(ends) == 1:
        raise ValueError(f"the records must have some text in {column!r}; there is none")
    documents = np.array(ends, dtype=np.int64)
    return Stream([path], documents[[0, -1]], documents)


def _content(record: Mapping[str, Any], column: str, number: int) -> bytes:
    text = record.get(column)
    if not isinstance(text, str):
        found = f"{type(text).__name__} there, and {', '.join(sorted(record))}"
        raise ValueError(f"record {number} must have a text in {column!r}; it has {found}")
    return text.encode()
