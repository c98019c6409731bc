"""Parquet, Feather and Arrow files, and the `datasets` package: the text in one column of a table, a row a document.

Read once, piece by piece, into the run's spool folder. From there on a table is a text like any other: a batch is a
function of (text, seed, index), so runs go on with any number of processes, and without the table or the network.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any

from runnel.data.corpus.spool import key_of, write_documents
from runnel.data.corpus.stream import Stream

SUFFIXES = (".parquet", ".arrow", ".feather")
HUB = "hf://"
"""How a name begins that `datasets.load_dataset` knows."""


def spool_tables(paths: list[Path], column: str, limit: int, folder: Path) -> Stream:
    """A column of files, in their order, the first `limit` rows of them (0: all). Missing texts are left out.

    ValueError where a file cannot be read or has no such column of text.
    """
    return write_documents(_first(_texts(paths, column), limit), folder, key_of([column, limit], paths))


def spool_dataset(name: str, split: str, column: str, limit: int, folder: Path) -> Stream:
    """The same of what `datasets` streams: a name on the hub, a folder of files, or one that `save_to_disk` wrote."""
    records = _records(name.removeprefix(HUB), split, column)
    return write_documents(_first(records, limit), folder, key_of([name, split, column, limit], []))


def contents(records: Iterable[Mapping[str, Any]], column: str) -> Iterator[bytes]:
    """The text of every record. ValueError where there is none."""
    for number, record in enumerate(records):
        text = record.get(column)
        if not isinstance(text, str):
            found = f"{type(text).__name__} there, and {', '.join(sorted(record))}"
            raise ValueError(f"record {number} must have a text in {column!r}; it has {found}")
        yield text.encode()


def _first(documents: Iterator[bytes], limit: int) -> Iterator[bytes]:
    return islice(documents, limit) if limit else documents


def _records(name: str, split: str, column: str) -> Iterator[bytes]:
    try:
        import datasets
    except ImportError:
        raise ValueError(f"{HUB}{name} needs the package datasets: pip install datasets") from None
    try:
        rows = _rows(datasets, name, split)
    except (OSError, ValueError) as error:
        raise ValueError(f"{HUB}{name} cannot be read by datasets: {_first_line(error)}") from error
    yield from contents(rows, column)


def _rows(datasets: Any, name: str, split: str) -> Any:
    if (Path(name) / "state.json").is_file():
        return datasets.load_from_disk(name)  # what `save_to_disk` wrote: of one dataset, which is no split
    return datasets.load_dataset(name, split=split, streaming=True)


def _texts(paths: list[Path], column: str) -> Iterator[bytes]:
    for path in paths:
        for batch in _batches(path, column):
            for text in batch.column(column):
                if text.is_valid:
                    yield text.as_py().encode()


def _batches(path: Path, column: str) -> Iterator[Any]:
    """Record batches of a file."""
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError:
        raise ValueError(f"{path} needs pyarrow: pip install 'runnel[tables]'") from None
    try:
        if path.suffix == ".parquet":
            file = parquet.ParquetFile(path)
            _check_column(path, file.schema_arrow, column)
            yield from file.iter_batches(columns=[column])
            return
        with pyarrow.OSFile(str(path)) as source:
            is_file = source.read(6) == b"ARROW1"  # `datasets` writes streams
            source.seek(0)
            reader = pyarrow.ipc.open_file(source) if is_file else pyarrow.ipc.open_stream(source)
            _check_column(path, reader.schema, column)
            yield from map(reader.get_batch, range(reader.num_record_batches)) if is_file else reader
    except (OSError, pyarrow.ArrowException) as error:
        raise ValueError(f"{path} cannot be read as a table: {_first_line(error)}") from error


def _check_column(path: Path, schema: Any, column: str) -> None:
    import pyarrow

    kinds = {field.name: field.type for field in schema}
    if column not in kinds:
        raise ValueError(f"{path} must have the column {column!r}; it has {', '.join(kinds)} (column=NAME chooses one)")
    if not (pyarrow.types.is_string(kinds[column]) or pyarrow.types.is_large_string(kinds[column])):
        raise ValueError(f"{path} must have text in the column {column!r}; it has {kinds[column]}")


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0]
