"""Text: every byte once an epoch, nothing across a border, the same batch whoever asks, and one line for bad input."""

from __future__ import annotations

import io
import os
import resource
import subprocess
import sys
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from runnel import data
from runnel.codecs import bpe
from runnel.codecs.bytes import Bytes
from runnel.data import text
from runnel.types import IGNORE, Batch

LENGTH, ROWS = 7, 3


def open_text(path: Path | str, **options: Any) -> text.Source:
    source = data.open_source(path, options.pop("codec", Bytes()), **({"length": LENGTH, "batch_size": ROWS} | options))
    assert isinstance(source, text.Source)
    return source


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Documents of distinct letters, so that a byte tells which document it is from."""
    where = tmp_path / "docs"
    (where / "sub").mkdir(parents=True)
    for name, letter, count in (("b.py", "b", 5), ("a.py", "a", 31), ("sub/c.py", "c", 1), ("sub/d.txt", "d", 40)):
        (where / name).write_text(letter * count)
    (where / "empty.py").write_text("")
    (where / ".hidden.py").write_text("hidden")
    return where


@pytest.fixture
def numbered(tmp_path: Path) -> Path:
    """101 different bytes in one file, so that a value is a place."""
    path = tmp_path / "numbers"
    path.write_bytes(bytes(range(20, 121)))
    return path


def counted_targets(batches: list[Batch]) -> list[int]:
    return sorted(int(t) for batch in batches for t in batch.targets.flatten() if t != IGNORE)


# ---- rows -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("length", [1, 2, 7, 50, 89])
def test_every_training_item_is_a_target_once_an_epoch(numbered: Path, length: int) -> None:
    source = open_text(numbered, length=length, batch_size=1)
    per_epoch = source.facts["rows_per_epoch"]
    everything = list(range(21, 20 + source.cut))  # all but the first, which nothing precedes
    for epoch in range(3):
        batches = [source.batch(epoch * per_epoch + n) for n in range(per_epoch)]
        assert counted_targets(batches) == everything
        assert all(batch.inputs.max() < 20 + source.cut for batch in batches)


def test_every_training_item_of_a_folder_is_a_target_once_an_epoch(folder: Path) -> None:
    source = open_text(folder, batch_size=1, valid_fraction=0)
    batches = [source.batch(n) for n in range(source.facts["rows_per_epoch"])]
    firsts = source.facts["documents"]
    assert len(counted_targets(batches)) == source.facts["bytes"] - firsts
    assert counted_targets(batches).count(ord("a")) == 30


def test_targets_follow_inputs(numbered: Path) -> None:
    batch = open_text(numbered, batch_size=40).batch(0)
    counts = batch.targets != IGNORE
    assert torch.equal(batch.targets[counts], batch.inputs[counts] + 1)
    assert batch.inputs.shape == batch.targets.shape == (40, LENGTH)
    assert batch.inputs.dtype == batch.targets.dtype == torch.int64


def test_rows_begin_elsewhere_in_the_next_epoch(numbered: Path) -> None:
    source = open_text(numbered, batch_size=1)
    per_epoch = source.facts["rows_per_epoch"]
    begins = [{int(source.batch(e * per_epoch + n).inputs[0, 0]) for n in range(per_epoch)} for e in range(8)]
    assert len({frozenset(b) for b in begins}) > 2


def test_a_batch_may_span_epochs(numbered: Path) -> None:
    one, all_at_once = open_text(numbered, batch_size=1), open_text(numbered, batch_size=64)
    rows = torch.cat([one.batch(n).inputs for n in range(128)])
    assert torch.equal(all_at_once.batch(0).inputs, rows[:64])
    assert torch.equal(all_at_once.batch(1).inputs, rows[64:])


def test_nothing_crosses_a_document(folder: Path) -> None:
    source = open_text(folder, length=20, batch_size=50)
    batch = source.batch(0)
    assert batch.segments is not None
    letters, targets, segments = batch.inputs, batch.targets, batch.segments
    assert not bool(segments[:, 0].any()), "a row counts its documents from 0"
    same_letter = letters[:, :, None] == letters[:, None, :]
    same_segment = segments[:, :, None] == segments[:, None, :]
    assert bool((same_letter | ~same_segment).all()), "one segment holds two documents"
    neighbours = same_letter[:, 1:, :-1].diagonal(dim1=1, dim2=2)
    assert torch.equal(neighbours, segments[:, 1:] == segments[:, :-1]), "a document is torn, or two are joined"
    assert bool(((targets == letters) | (targets == IGNORE)).all()), "a target comes from another document"
    assert bool((targets != IGNORE).any())


def test_the_end_of_the_text_does_not_lead_into_its_beginning(tmp_path: Path) -> None:
    (tmp_path / "t").write_bytes(b"zyyyyyyyyyyyyyyyyyyy")
    source = open_text(tmp_path / "t", length=10, batch_size=64, valid_fraction=0)
    batch = source.batch(0)
    assert batch.segments is not None
    assert not bool((batch.targets == ord("z")).any())
    wraps = batch.inputs[:, 1:] == ord("z")
    assert bool(wraps.any())
    assert torch.equal(wraps, batch.segments[:, 1:] != batch.segments[:, :-1])


def test_one_document_has_no_segments(numbered: Path) -> None:
    batches = list(open_text(numbered, valid_fraction=0.5).valid())
    assert all(batch.segments is None for batch in batches)


def test_held_out_part_is_covered_once_and_starts_after_the_last_training_item(numbered: Path) -> None:
    source = open_text(numbered, valid_fraction=0.3)
    batches = list(source.valid())
    assert counted_targets(batches) == list(range(20 + source.cut, 121))
    assert int(batches[0].inputs[0, 0]) == 20 + source.cut - 1
    assert len(batches) == source.facts["valid_batches"]
    for first, second in zip(batches, source.valid(), strict=True):
        assert torch.equal(first.inputs, second.inputs)
        assert torch.equal(first.targets, second.targets)
    assert source.facts["valid_tokens"] == 101 - source.cut == 31


def test_no_held_out_part_when_none_is_asked_for(numbered: Path) -> None:
    source = open_text(numbered, valid_fraction=0)
    assert list(source.valid()) == []
    assert source.cut == 101


def test_held_out_part_never_begins_inside_a_character(tmp_path: Path) -> None:
    (tmp_path / "t").write_text("é😀" * 40)
    for fraction in np.linspace(0.05, 0.9, 30):
        train, held_out = open_text(tmp_path / "t", length=2, valid_fraction=float(fraction)).sample()
        assert train.decode() + held_out.decode() == "é😀" * 40


def test_the_same_batch_in_another_process_and_in_any_order(folder: Path) -> None:
    here = open_text(folder, seed=5)
    later, earlier = here.batch(9), here.batch(2)
    program = (
        "import sys; from runnel import data; from runnel.codecs.bytes import Bytes; "
        f"s = data.open_source(sys.argv[1], Bytes(), length={LENGTH}, batch_size={ROWS}, seed=5); "
        "print([s.batch(i).inputs.tolist() for i in (2, 9)])"
    )
    there = subprocess.run([sys.executable, "-c", program, str(folder)], capture_output=True, text=True, check=True)
    assert there.stdout.strip() == str([earlier.inputs.tolist(), later.inputs.tolist()])
    assert open_text(folder, seed=6).batch(2).inputs.tolist() != earlier.inputs.tolist()


# ---- files ------------------------------------------------------------------------------------------------------


def test_a_folder_is_its_files_in_order(folder: Path) -> None:
    source = open_text(folder, valid_fraction=0)
    assert source.sample()[0] == b"a" * 31 + b"b" * 5 + b"c" + b"d" * 40
    assert source.facts["documents"] == 4
    assert open_text(f"{folder}:suffix=.py", valid_fraction=0).sample()[0] == b"a" * 31 + b"b" * 5 + b"c"
    assert open_text(f"{folder}:suffix=.py,exclude=sub+b.py", valid_fraction=0).sample()[0] == b"a" * 31


def test_a_path_with_a_colon_is_a_path(tmp_path: Path) -> None:
    (tmp_path / "a:b=c").write_text("x" * 50)
    assert open_text(tmp_path / "a:b=c").facts["bytes"] == 50


def test_ten_gigabytes_do_not_enter_memory(tmp_path: Path) -> None:
    path = tmp_path / "huge"
    with path.open("wb") as file:
        file.truncate(10 << 30)  # sparse: nothing is stored
        file.seek(5 << 30)
        file.write(b"middle")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    source = open_text(f"{path}:binary=true", length=1024, batch_size=8)
    for index in range(20):
        source.batch(index * 10_000)
    next(source.valid())
    assert source.facts["bytes"] == 10 << 30
    assert source.stream.read((5 << 30) - 1, (5 << 30) + 6).tobytes() == b"\0middle"
    grown_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert grown_kib < 64 << 10


def test_fingerprint_follows_the_text(numbered: Path) -> None:
    before = open_text(numbered).facts["fingerprint"]
    assert open_text(numbered, seed=3).facts["fingerprint"] == before
    numbered.write_bytes(bytes(range(21, 122)))
    assert open_text(numbered).facts["fingerprint"] != before


# ---- stdin ------------------------------------------------------------------------------------------------------


class Pipe:
    """Standard input as `spool_stdin` sees it."""

    def __init__(self, content: bytes) -> None:
        self.buffer = io.BytesIO(content)

    def isatty(self) -> bool:
        return False


def test_stdin_is_spooled_and_used_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def pipe(content: bytes) -> None:
        monkeypatch.setattr(sys, "stdin", Pipe(content))

    spool = tmp_path / "spool"
    pipe(b"")
    with pytest.raises(ValueError, match="stdin must have some text piped"):
        open_text("-", spool=spool)
    pipe(b"hello world, " * 9)
    first = open_text("-", spool=spool)
    written = (spool / "stdin.bin").stat().st_mtime_ns
    assert (spool / "stdin.bin").read_bytes() == b"hello world, " * 9
    pipe(b"hello world, " * 9)  # the same command again
    open_text("-", spool=spool)
    assert (spool / "stdin.bin").stat().st_mtime_ns == written
    pipe(b"")  # resumed without a pipe
    assert torch.equal(open_text("-", spool=spool).batch(4).inputs, first.batch(4).inputs)
    pipe(b"another text " * 9)
    assert open_text("-", spool=spool).sample()[0].startswith(b"another")
    assert sorted(path.name for path in spool.iterdir()) == ["stdin.bin"]


def test_stdin_by_a_real_pipe(tmp_path: Path) -> None:
    program = (
        "import sys; from runnel import data; from runnel.codecs.bytes import Bytes; "
        "s = data.open_source('-', Bytes(), length=8, batch_size=2, spool=sys.argv[1]); print(s.facts['bytes'])"
    )
    command = [sys.executable, "-c", program, str(tmp_path)]
    ran = subprocess.run(command, input=b"x" * 3_000_001, capture_output=True, check=True)
    assert ran.stdout.strip() == b"3000001"


# ---- BPE --------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def merges() -> bpe.Bpe:
    return bpe.train(["the cat sat on the mat, é😀 " * 30], vocab_size=290)


def test_bpe_gives_the_text_back_and_holds_out_the_same_bytes(folder: Path, tmp_path: Path, merges: bpe.Bpe) -> None:
    (folder / "zz.py").write_text("the cat sat on the mat, é😀 " * 400)
    as_bytes, as_tokens = open_text(folder), open_text(folder, codec=merges, spool=tmp_path / "spool")
    assert as_tokens.sample() == as_bytes.sample()
    assert as_tokens.facts["valid_bytes"] == as_bytes.facts["valid_bytes"] == as_tokens.facts["bytes"] - as_bytes.cut
    assert as_tokens.facts["documents"] == as_bytes.facts["documents"]
    assert as_tokens.facts["valid_tokens"] < as_bytes.facts["valid_tokens"] / 2
    assert (as_tokens.facts["bytes_per_token"], as_bytes.facts["bytes_per_token"]) > (2, 1)
    assert as_tokens.stream.dtype == np.uint16
    assert as_tokens.batch(0).inputs.max() < merges.vocab_size


def test_documents_are_encoded_apart(folder: Path, tmp_path: Path, merges: bpe.Bpe) -> None:
    source = open_text(folder, codec=merges, spool=tmp_path, valid_fraction=0)
    ends = source.stream.documents.tolist()
    parts = [merges.decode(source.stream.read(a, b).tolist()) for a, b in pairwise(ends)]
    assert parts == ["a" * 31, "b" * 5, "c", "d" * 40]


def test_tokens_are_encoded_once_and_again_when_something_changed(
    folder: Path, tmp_path: Path, merges: bpe.Bpe
) -> None:
    tokens = tmp_path / "tokens.bin"

    def made() -> int:
        open_text(folder, codec=merges, spool=tmp_path)
        return tokens.stat().st_ino

    first = made()
    assert made() == first
    (folder / "b.py").write_text("bbbb!")
    os.utime(folder / "b.py", ns=(1, 1))
    second = made()
    assert second != first
    with tokens.open("ab") as file:
        file.write(b"xx")
    third = made()
    assert third != second
    (tmp_path / "tokens.json").write_text('{"key"')
    assert made() != third
    fourth = tokens.stat().st_ino
    other = bpe.train(["unlike anything before"], vocab_size=270)
    open_text(folder, codec=other, spool=tmp_path)
    assert tokens.stat().st_ino != fourth
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".tokens")]


def test_another_held_out_fraction_is_not_served_from_the_cache(folder: Path, tmp_path: Path, merges: bpe.Bpe) -> None:
    for fraction in (0.1, 0.4, 0):
        as_tokens = open_text(folder, codec=merges, spool=tmp_path, valid_fraction=fraction)
        assert as_tokens.sample() == open_text(folder, valid_fraction=fraction).sample()


def test_an_interrupted_encoding_leaves_no_record(
    folder: Path, tmp_path: Path, merges: bpe.Bpe, monkeypatch: pytest.MonkeyPatch
) -> None:
    open_text(folder, codec=merges, spool=tmp_path)
    (folder / "b.py").write_text("changed")

    def full_disk(path: Path, content: Any) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("runnel.data.corpus.spool.write_json", full_disk)
        with pytest.raises(OSError, match="No space left"):
            open_text(folder, codec=merges, spool=tmp_path)
    assert not (tmp_path / "tokens.json").exists()
    assert open_text(folder, codec=merges, spool=tmp_path).sample() == open_text(folder).sample()


def test_long_lines_are_never_cut_inside_a_character(tmp_path: Path, merges: bpe.Bpe) -> None:
    content = "x" + "é😀" * 30_000
    (tmp_path / "t").write_text(content)
    train, held_out = open_text(tmp_path / "t", codec=merges, spool=tmp_path / "s").sample()
    assert (train + held_out).decode() == content
    pieces = list(data.training_text(tmp_path / "t"))
    assert b"".join(pieces) == train
    assert len(pieces) > 1
    assert all(piece.decode() for piece in pieces)


# ---- bad input --------------------------------------------------------------------------------------------------


def refused(path: Path | str, message: str, **options: Any) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        open_text(path, **options)
    assert "\n" not in str(caught.value)


def test_nothing_there(tmp_path: Path) -> None:
    refused(tmp_path / "absent", "there is no '.*absent'")
    refused(tmp_path, "has no file with content")
    (tmp_path / "e").write_text("")
    refused(tmp_path / "e", "e must hold some text; it has no bytes")
    refused(tmp_path, "has no file with content")
    (tmp_path / "t.txt").write_text("content enough")
    refused(f"{tmp_path}:suffix=.py", r"no file with content that ends in \.py")


def test_too_short(tmp_path: Path) -> None:
    path = tmp_path / "t"
    path.write_text("12345678")
    refused(
        path, "must have at least 9 tokens, 8 of them to train on, for length=7; it has 8, 8 to tr", valid_fraction=0
    )
    path.write_text("123456789")
    assert open_text(path, valid_fraction=0.1).cut == 8
    refused(path, "it has 9, 4 to train on", valid_fraction=0.5)
    refused(path, r"valid_fraction must be in \[0, 1\); got 1", valid_fraction=1)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"text\0text", "has a NUL byte at position 4"),
        (b"caf\xe9 latin", "byte 0xe9, which is not UTF-8, at position 3"),
        (b"cut off \xf0\x9f", "byte 0xf0, which is not UTF-8, at position 8"),
        ("é".encode() * 500_000 + b"\xff", "byte 0xff, which is not UTF-8, at position 1000000"),
        (b"a" + "é".encode() * 500_000 + b"\0", "a NUL byte at position 1000001"),
    ],
)
def test_what_is_not_text_is_named_with_its_position(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "t").write_bytes(content)
    refused(tmp_path / "t", message)
    refused(tmp_path, message)
    assert open_text(f"{tmp_path / 't'}:binary=true", length=2).facts["bytes"] == len(content)


def test_text_with_long_characters_everywhere_is_text(tmp_path: Path) -> None:
    for shift in range(4):
        (tmp_path / "t").write_text("x" * shift + "😀" * 100_000)
        assert open_text(tmp_path / "t").facts["bytes"] == 400_000 + shift


def test_binary_needs_the_byte_codec(tmp_path: Path, merges: bpe.Bpe) -> None:
    (tmp_path / "a").write_bytes(b"fine\n")
    (tmp_path / "b").write_bytes(b"good line\n" * 10_000 + b"bad \xff line")
    spool = tmp_path / "spool"
    refused(f"{tmp_path}:binary=true", "b must be UTF-8 .* byte 0xff at position 100004", codec=merges, spool=spool)
    assert not (spool / "tokens.bin").exists()


def test_unreadable_and_odd_files(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    refused(tmp_path / "pipe", "must be a regular file or a folder")
    if os.geteuid() != 0:  # nothing is unreadable for root
        (tmp_path / "t").write_text("x" * 100)
        (tmp_path / "t").chmod(0)
        refused(tmp_path / "t", "t cannot be read: Permission denied")


def test_a_file_that_shrinks_during_a_run_is_an_error_not_a_crash(tmp_path: Path) -> None:
    path = tmp_path / "t"
    path.write_bytes(b"x" * 10_000)
    source = open_text(path, length=100, batch_size=99)
    path.write_bytes(b"x" * 50)
    with pytest.raises(ValueError, match="must keep its 10000 bytes while it is used"):
        source.batch(0)
    path.unlink()
    with pytest.raises(ValueError, match="t cannot be read: No such file"):
        source.batch(0)


def test_a_spool_is_asked_for_where_it_is_needed(numbered: Path, merges: bpe.Bpe) -> None:
    refused("-", "stdin must have a spool folder")
    refused(numbered, "codec bpe must have a spool folder", codec=merges)


def test_a_negative_index_is_refused(numbered: Path) -> None:
    with pytest.raises(ValueError, match="batch index must be >= 0; got -1"):
        open_text(numbered).batch(-1)
