"""What the codecs share that are made by the `tokenizers` package."""

from __future__ import annotations

import hashlib
from pathlib import Path

from tokenizers import Tokenizer


def read(path: Path) -> Tokenizer:
    """A tokenizer.json. ValueError when it is damaged."""
    try:
        return Tokenizer.from_str(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ValueError(f"{path} cannot be read: {error.strerror}") from error
    except Exception as error:  # tokenizers raises bare Exception
        raise ValueError(f"{path} is not a tokenizer.json: {' '.join(str(error).split())}") from error


def byte_of_letter() -> dict[str, int]:
    """The byte-level alphabet: printable Latin-1 bytes are their own letter, the others take letters from U+0100 on."""
    own = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [value for value in range(256) if value not in own]
    return {chr(value): value for value in own} | {chr(256 + n): value for n, value in enumerate(others)}


def text_of(text: str | bytes) -> str:
    if isinstance(text, str):
        return text.encode("utf-8", errors="surrogateescape").decode("utf-8")
    return text.decode("utf-8")


def write_text(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8")


def sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
