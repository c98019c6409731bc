"""What every codec is: an invertible map between text and token ids, each id standing for fixed bytes.

Because an id is a run of bytes, decoding is joining them, bits per byte is well defined, and text can be printed as it
is generated: `stream()` holds back the half of a character until its other half has come.
"""

from __future__ import annotations

import codecs
import hashlib
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from pathlib import Path

from runnel.storage import write_json

FORMAT = "runnel-codec"


class Codec(ABC):
    """Base of the codecs. token_bytes: one entry an id, the bytes that it stands for.

    opening: the ids that stand in front of a text. ends: the ids that end one.
    """

    name: str
    opening: Sequence[int] = ()
    ends: frozenset[int] = frozenset()

    def __init__(self, token_bytes: Sequence[bytes]) -> None:
        self.token_bytes = token_bytes

    @property
    def vocab_size(self) -> int:
        return len(self.token_bytes)

    @abstractmethod
    def encode(self, text: str | bytes) -> list[int]:
        """Token ids of a text; bytes are taken as UTF-8 where the codec needs characters (else ValueError)."""

    def begin(self, text: str | bytes) -> list[int]:
        """Token ids of a text that nothing stands before: the opening first, unless the text itself begins with it."""
        ids = self.encode(text)
        return ids if ids[: len(self.opening)] == list(self.opening) else [*self.opening, *ids]

    def encode_batch(self, texts: Sequence[str | bytes]) -> list[list[int]]:
        """`encode` of many texts, in parallel where the codec can."""
        return [self.encode(text) for text in texts]

    def decode_bytes(self, ids: Iterable[int]) -> bytes:
        """The exact bytes of the ids. ValueError names the first id outside [0, vocab_size)."""
        return b"".join(self._bytes_of(token, position) for position, token in enumerate(ids))

    def decode(self, ids: Iterable[int]) -> str:
        """The text of the ids; bytes that are not UTF-8 become U+FFFD."""
        return self.decode_bytes(ids).decode("utf-8", errors="replace")

    def stream(self) -> StreamDecoder:
        """A decoder for ids that arrive one by one."""
        return StreamDecoder(self)

    @property
    def fingerprint(self) -> str:
        """Two codecs with the same fingerprint encode alike (the key of token caches)."""
        digest = hashlib.sha256()
        for piece in self.token_bytes:
            digest.update(len(piece).to_bytes(4, "little") + piece)
        return f"{self.name}-{digest.hexdigest()[:16]}"

    def save(self, folder: str | Path) -> None:
        """Write codec.json into the folder (made when missing), atomically. OSError when the disk is full."""
        write_json(Path(folder) / "codec.json", {"format": FORMAT, "name": self.name, "vocab_size": self.vocab_size})

    def _bytes_of(self, token: int, position: int) -> bytes:
        if not 0 <= token < self.vocab_size:
            raise ValueError(f"tokens must be in [0, {self.vocab_size}); got {token} at position {position}")
        return self.token_bytes[token]


class StreamDecoder:
    """Incremental decoding: the pieces that `push` and `finish` return join to exactly `codec.decode(ids)`."""

    def __init__(self, codec: Codec) -> None:
        self._codec = codec
        self._seen = 0
        self._utf8 = codecs.getincrementaldecoder("utf-8")(errors="replace")

    def push(self, token: int) -> str:
        """The characters that this id completes; "" while a character is incomplete."""
        piece = self._codec._bytes_of(token, self._seen)
        self._seen += 1
        return self._utf8.decode(piece)

    def finish(self) -> str:
        """What is left at the end: U+FFFD for a character that was never completed, else ""."""
        return self._utf8.decode(b"", final=True)
