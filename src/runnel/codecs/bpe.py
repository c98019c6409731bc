"""Byte-level BPE: frequent byte runs as single tokens, so that the same text has fewer steps.

Neural Machine Translation of Rare Words with Subword Units (Sennrich, Haddow and Birch, 2016, arXiv 1508.07909), on
bytes instead of characters: the 256 bytes are always in the vocabulary, so that every text has an encoding and decoding
gives it back exactly. Training and merging are the `tokenizers` package's; here are only the checks that a given
tokenizer.json keeps that promise, and the table id -> bytes that exact decoding needs.

Deviation: the paper merges inside whitespace-separated words; here words are the pieces of the GPT-2 pattern, which
keeps the space in front of a word.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from runnel.codecs._codec import FORMAT, Codec
from runnel.codecs._tokenizers import byte_of_letter, read, sha256, text_of, write_text
from runnel.storage import write_atomically, write_json

PAPERS: dict[str, str] = {"Neural Machine Translation of Rare Words with Subword Units": "1508.07909"}

_PROBE = " A b\n\té \u4e2d\U0001f600  z"


class Bpe(Codec):
    """A byte-level BPE. Make one with `train` or `from_file`."""

    name = "bpe"

    def __init__(self, tokenizer: Tokenizer) -> None:
        super().__init__(_token_bytes(tokenizer))
        tokenizer.no_truncation()
        tokenizer.no_padding()
        self._tokenizer = tokenizer
        self._json = tokenizer.to_str()
        if self.decode_bytes(self.encode(_PROBE)) != _PROBE.encode():
            raise ValueError("tokenizer must give a text back unchanged; this one changes spaces, case or characters")

    @property
    def fingerprint(self) -> str:
        return f"bpe-{sha256(self._json)[:16]}"

    def encode(self, text: str | bytes) -> list[int]:
        """Token ids. ValueError when bytes are not UTF-8 (the position is in the message)."""
        return list(self._tokenizer.encode(text_of(text), add_special_tokens=False).ids)

    def encode_batch(self, texts: Sequence[str | bytes]) -> list[list[int]]:
        encodings = self._tokenizer.encode_batch_fast([text_of(text) for text in texts], add_special_tokens=False)
        return [encoding.ids for encoding in encodings]

    def save(self, folder: str | Path) -> None:
        """Write tokenizer.json, then codec.json with its checksum: a mixed pair is noticed at `load`."""
        write_atomically(Path(folder) / "tokenizer.json", lambda path: write_text(path, self._json))
        record = {"format": FORMAT, "name": self.name, "vocab_size": self.vocab_size, "sha256": sha256(self._json)}
        write_json(Path(folder) / "codec.json", record)


def train(chunks: Iterable[str | bytes], vocab_size: int) -> Bpe:
    """Learn merges from an iterator of texts (read once, piece by piece).

    vocab_size: at least 256; a small text may give less. ValueError when there is no text, or bytes are not UTF-8.
    """
    if vocab_size < 256:
        raise ValueError(f"vocab_size must be at least 256 (every byte is a token); got {vocab_size}")
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(vocab_size=vocab_size, initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator(_not_empty(chunks), trainer)
    return Bpe(tokenizer)


def from_file(path: str | Path) -> Bpe:
    """The byte-level tokenizer of a tokenizer.json. ValueError when it is damaged, or cannot give every text back."""
    path = Path(path)
    tokenizer = read(path)
    try:
        return Bpe(tokenizer)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def load(folder: Path, record: dict[str, Any]) -> Bpe:
    """The codec of a saved folder. record: the content of its codec.json."""
    codec = from_file(folder / "tokenizer.json")
    if sha256(codec._json) != record.get("sha256"):
        raise ValueError(f"{folder / 'tokenizer.json'} is not the one that codec.json was saved with")
    return codec


def _token_bytes(tokenizer: Tokenizer) -> list[bytes]:
    """For each id its bytes. ValueError unless the tokenizer is byte-level with all 256 bytes."""
    kind = (json.loads(tokenizer.to_str()).get("decoder") or {}).get("type")
    if kind != "ByteLevel":
        raise ValueError(f"tokenizer must be byte-level (decoder ByteLevel); got decoder {kind}")
    table = byte_of_letter()
    added = {token: entry.content for token, entry in tokenizer.get_added_tokens_decoder().items()}
    vocab = tokenizer.get_vocab(with_added_tokens=True)
    missing = sum(letter not in vocab for letter in table)
    if missing:
        raise ValueError(f"tokenizer must have a token for each of the 256 bytes; {missing} are missing")
    pieces = [b""] * (max(vocab.values()) + 1)
    for letters, token in vocab.items():
        if token in added:
            pieces[token] = added[token].encode()
        elif all(letter in table for letter in letters):
            pieces[token] = bytes(table[letter] for letter in letters)
        else:
            raise ValueError(f"tokenizer's token {token} ({letters!r}) does not stand for bytes")
    return pieces


def _not_empty(chunks: Iterable[str | bytes]) -> Iterator[str]:
    empty = True
    for chunk in chunks:
        empty = empty and not chunk
        yield text_of(chunk)
    if empty:
        raise ValueError("text to train a BPE on must not be empty")
