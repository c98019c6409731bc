"""Bytes: exact both ways, and never half a character in a stream."""

from __future__ import annotations

from pathlib import Path

import pytest

from runnel import catalog, codecs
from runnel.codecs.bytes import Bytes

TEXT = "naïve 中文 😀\n\x00end"


def test_encoding_is_utf8_and_decoding_gives_it_back() -> None:
    codec = Bytes()
    assert codec.vocab_size == 256
    assert codec.encode(TEXT) == list(TEXT.encode())
    assert codec.encode(TEXT.encode()) == list(TEXT.encode())
    assert codec.decode(codec.encode(TEXT)) == TEXT
    assert codec.decode_bytes(range(256)) == bytes(range(256))


def test_broken_utf8_is_replaced_not_raised() -> None:
    assert Bytes().decode([0x61, 0xFF, 0xC3]) == "a\ufffd\ufffd"


def test_undecodable_command_line_bytes_come_back() -> None:
    assert Bytes().encode(b"a\xff".decode("utf-8", errors="surrogateescape")) == [0x61, 0xFF]


def test_stream_never_prints_half_a_character() -> None:
    stream = Bytes().stream()
    pieces = [stream.push(token) for token in "é😀x".encode()]
    assert pieces == ["", "é", "", "", "", "😀", "x"]
    assert stream.finish() == ""


@pytest.mark.parametrize("raw", [b"\xf0\x9f", b"a\xffb\xc3", b"\xe4\xb8(", b"\x80" * 5, b""])
def test_stream_joins_to_decode_on_broken_bytes(raw: bytes) -> None:
    stream = Bytes().stream()
    assert "".join(stream.push(token) for token in raw) + stream.finish() == Bytes().decode(raw)


@pytest.mark.parametrize("bad", [-1, 256])
def test_a_token_out_of_range_is_named_with_its_position(bad: int) -> None:
    with pytest.raises(ValueError, match=rf"tokens must be in \[0, 256\); got {bad} at position 2"):
        Bytes().decode([1, 2, bad])
    stream = Bytes().stream()
    stream.push(65)
    with pytest.raises(ValueError, match=f"got {bad} at position 1"):
        stream.push(bad)


def test_save_and_load(tmp_path: Path) -> None:
    Bytes().save(tmp_path / "made")
    assert isinstance(codecs.load(tmp_path / "made"), Bytes)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "must hold a codec.json"),
        ('{"format": "runn', "is damaged"),
        ("[1]", "is not a codec"),
        ('{"name": "bytes"}', "is not a codec"),
        ('{"format": "runnel-codec", "name": "../os"}', "names the codec '../os'; known codecs: bpe, bytes"),
        ('{"format": "runnel-codec", "name": "bytes", "vocab_size": 7}', "must have vocab_size 256"),
        ('{"format": "runnel-codec", "name": "bpe", "vocab_size": 256}', "tokenizer.json cannot be read"),
    ],
)
def test_a_damaged_or_foreign_codec_is_one_clear_line(tmp_path: Path, content: str | None, message: str) -> None:
    if content is not None:
        (tmp_path / "codec.json").write_text(content)
    with pytest.raises(ValueError, match=message) as caught:
        codecs.load(tmp_path)
    assert "\n" not in str(caught.value)


def test_names_are_the_files_of_the_folder() -> None:
    assert catalog.names("codecs") == ("bpe", "bytes", "tokenizer")
