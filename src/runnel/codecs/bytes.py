"""Bytes: the text itself as tokens 0..255. Nothing to train, nothing out of vocabulary, works on any file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from runnel.codecs._codec import Codec

PAPERS: dict[str, str] = {}


class Bytes(Codec):
    """The identity codec: 256 ids, one for each byte."""

    name = "bytes"

    def __init__(self) -> None:
        super().__init__([bytes([value]) for value in range(256)])

    def encode(self, text: str | bytes) -> list[int]:
        """UTF-8 bytes of a str (undecodable bytes of a command line come back as they were), or the bytes given."""
        return list(text.encode("utf-8", errors="surrogateescape") if isinstance(text, str) else text)


def load(folder: Path, record: dict[str, Any]) -> Bytes:
    """The codec of a saved folder. record: the content of its codec.json."""
    if record.get("vocab_size") != 256:
        raise ValueError(
            f"{folder / 'codec.json'} must have vocab_size 256 for bytes; got {record.get('vocab_size')!r}"
        )
    return Bytes()
