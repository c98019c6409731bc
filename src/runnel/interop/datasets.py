"""Documents of the `datasets` package, or of anything that iterates over records, as text to train on.

rows = datasets.load_from_disk("folder")["train"]
source = Source(stream(rows, "runs/x/spool"), Config(), codec, length=256, batch_size=8, spool="runs/x/spool")
runnel.train.fit(model, source, "runs/x", config)
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from runnel.data.corpus.spool import write_documents
from runnel.data.corpus.stream import Stream
from runnel.data.corpus.tables import contents


def stream(records: Iterable[Mapping[str, Any]], folder: str | Path, column: str = "text") -> Stream:
    """The column of every record as a document: written to `<folder>/documents.bin`, one after the other.

    Nothing but one record is held in memory. Empty documents are left out. ValueError where a record has no text there.
    """
    return write_documents(contents(records, column), Path(folder))
