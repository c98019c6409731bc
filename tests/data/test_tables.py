"""Tables are texts: a row a document, whatever the file; read once, and with the same batches whoever asks."""

from __future__ import annotations

import os
import sys
from itertools import pairwise
from pathlib import Path

import pytest

from runnel import data
from runnel.codecs.bytes import Bytes
from runnel.data.text import Source

pyarrow = pytest.importorskip("pyarrow", reason="tables need pyarrow")

TEXTS = [f"row {number}: {'word ' * (number % 7)}" for number in range(40)]
HOLES = [*TEXTS[:20], None, "", *TEXTS[20:]]


def write(path: Path, texts: list[str | None], column: str = "text", stream: bool = False) -> Path:
    from pyarrow import feather, parquet

    table = pyarrow.table({"id": list(range(len(texts))), column: texts})
    if path.suffix == ".parquet":
        parquet.write_table(table, path, row_group_size=7)
    elif stream:
        with pyarrow.OSFile(str(path), "wb") as sink, pyarrow.ipc.new_stream(sink, table.schema) as writer:
            writer.write_table(table, max_chunksize=5)
    else:
        feather.write_feather(table, path, chunksize=11)
    return path


def opened(path: Path | str, spool: Path) -> Source:
    source = data.open_source(str(path), Bytes(), length=16, batch_size=4, spool=spool)
    assert isinstance(source, Source)
    return source


def documents(source: Source) -> list[str]:
    ends = source.stream.documents
    return [source.stream.read(a, b).tobytes().decode() for a, b in pairwise(ends.tolist())]


@pytest.mark.parametrize(("name", "stream"), [("t.parquet", False), ("t.feather", False), ("t.arrow", True)])
def test_a_row_is_a_document(tmp_path: Path, name: str, stream: bool) -> None:
    path = write(tmp_path / name, HOLES, stream=stream)
    assert documents(opened(path, tmp_path / "spool")) == TEXTS
    assert documents(opened(f"{path}:limit=9", tmp_path / "few")) == TEXTS[:9]


def test_a_folder_is_read_in_the_order_of_names(tmp_path: Path) -> None:
    folder = tmp_path / "saved"
    folder.mkdir()
    write(folder / "data-00001-of-00002.arrow", TEXTS[20:], stream=True)
    write(folder / "data-00000-of-00002.arrow", TEXTS[:20], stream=True)
    (folder / "state.json").write_text("{}")  # as `datasets` leaves it
    assert documents(opened(folder, tmp_path / "spool")) == TEXTS


def test_batches_are_those_of_the_texts_in_files(tmp_path: Path) -> None:
    (tmp_path / "files").mkdir()
    for number, text in enumerate(TEXTS):
        (tmp_path / "files" / f"{number:02}").write_text(text)
    path = write(tmp_path / "t.parquet", list(TEXTS))
    sources = [opened(path, tmp_path / "spool"), opened(tmp_path / "files", tmp_path / "spool")]
    for index in (0, 5):
        found, wanted = [source.batch(index) for source in sources]
        assert found.inputs.equal(wanted.inputs) and found.targets.equal(wanted.targets)


def test_it_is_read_once_and_again_when_it_changes(tmp_path: Path) -> None:
    path, spool = write(tmp_path / "t.parquet", list(TEXTS)), tmp_path / "spool"
    opened(path, spool)
    copy = spool / "documents.bin"
    os.utime(copy, ns=(1, 1))
    opened(path, spool)
    assert copy.stat().st_mtime_ns == 1
    write(path, TEXTS[::-1])
    assert documents(opened(path, spool)) == TEXTS[::-1]


@pytest.mark.parametrize(
    ("column", "texts", "options", "said"),
    [
        ("body", TEXTS, "", r"must have the column 'text'; it has id, body \(column=NAME chooses one\)"),
        ("text", TEXTS, ":column=id", "must have text in the column 'id'; it has int64"),
        ("text", [None, ""], "", "documents must have some text; there is none"),
        ("text", TEXTS, ":limit=-1", "limit must be at least 0; got -1"),
    ],
)
def test_mistakes(tmp_path: Path, column: str, texts: list[str | None], options: str, said: str) -> None:
    path = write(tmp_path / "t.parquet", texts, column)
    with pytest.raises(ValueError, match=said):
        opened(f"{path}{options}", tmp_path / "spool")


@pytest.mark.parametrize("name", ["t.parquet", "t.arrow"])
def test_damage_is_one_line(tmp_path: Path, name: str) -> None:
    path = write(tmp_path / name, list(TEXTS), stream=True)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(ValueError, match=f"{name} cannot be read as a table") as caught:
        opened(path, tmp_path / "spool")
    assert "\n" not in str(caught.value)


@pytest.mark.thorough
def test_a_dataset_is_streamed_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_HOME", str(tmp_path / "home"))
    pytest.importorskip("datasets", reason="what datasets streams needs datasets")
    (tmp_path / "words").mkdir()
    write(tmp_path / "words" / "validation.parquet", list(TEXTS))
    name = f"hf://{tmp_path / 'words'}"
    assert documents(opened(f"{name}:split=validation,limit=30", tmp_path / "spool")) == TEXTS[:30]
    with pytest.raises(ValueError, match=f"{name} cannot be read by datasets: Bad split: train"):
        opened(name, tmp_path / "other")
    monkeypatch.setitem(sys.modules, "datasets", None)  # a run goes on without it
    assert documents(opened(f"{name}:split=validation,limit=30", tmp_path / "spool")) == TEXTS[:30]


def test_what_is_not_installed_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "t.parquet", list(TEXTS))
    monkeypatch.setitem(sys.modules, "datasets", None)
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(ValueError, match="hf://someone/words needs the package datasets"):
        opened("hf://someone/words", tmp_path)
    with pytest.raises(ValueError, match=r"t.parquet needs pyarrow: pip install 'runnel\[tables\]'"):
        opened(path, tmp_path)
