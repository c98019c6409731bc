"""Stop strings: where a text ends because of what it says, whatever the borders of its tokens.

A token stands for fixed bytes (see `runnel.codecs`), so that a stop string is looked for in the bytes: it may begin in
the middle of one token and end in the middle of another. The stop string that is complete first, byte by byte, counts;
of those that end at one byte, the one that begins first. So the cut does not depend on the tokens.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

from runnel.codecs import Codec


class StopText:
    """The bytes of one text as its tokens come, up to a stop string. ends: tokens that end it, which are no part of it.

    found: whether a stop string is complete; `text` then ends before it.
    """

    def __init__(self, codec: Codec, stops: Sequence[str | bytes] = (), ends: Collection[int] = frozenset()) -> None:
        self.codec, self.ends = codec, ends
        self.stops = [stop.encode() if isinstance(stop, str) else bytes(stop) for stop in stops]
        if not all(self.stops):
            raise ValueError("a stop string must have at least one character; got an empty one")
        self.found = False
        self._tail = bytearray()  # the end of the text, as long as a stop string may reach back
        self._kept: list[bytes] = []

    @property
    def text(self) -> bytes:
        """The text so far, without the stop string."""
        return b"".join(self._kept) + self._tail

    def after(self, tokens: Sequence[int]) -> StopText:
        """One of its own that has read these tokens, up to a stop string."""
        fresh = StopText(self.codec, self.stops, self.ends)
        for token in tokens:
            if not fresh.found:
                fresh.push(token)
        return fresh

    def push(self, token: int) -> bytes:
        """Read a token. Returns the bytes that are now known to be text: no stop string can begin in them any more."""
        assert not self.found, "nothing follows a stop string"
        if token in self.ends:
            return b""
        if not self.stops:
            self._kept.append(self.codec.token_bytes[token])
            return self._kept[-1]
        for byte in self.codec.token_bytes[token]:
            self._tail.append(byte)
            ends = [stop for stop in self.stops if self._tail.endswith(stop)]
            if ends:
                self.found = True
                del self._tail[len(self._tail) - max(map(len, ends)) :]
                break
        return self._release(0 if self.found else self._undecided())

    def finish(self) -> bytes:
        """The rest of a text that ends without a stop string."""
        return self._release(0)

    def _undecided(self) -> int:
        """Bytes at the end that may be the beginning of a stop string."""
        longest = max(map(len, self.stops), default=1) - 1
        lengths = range(min(longest, len(self._tail)), 0, -1)
        ends = (bytes(self._tail[len(self._tail) - length :]) for length in lengths)
        return next((len(end) for end in ends if any(stop.startswith(end) for stop in self.stops)), 0)

    def _release(self, keep: int) -> bytes:
        sure = bytes(self._tail[: len(self._tail) - keep])
        del self._tail[: len(sure)]
        self._kept.append(sure)
        return sure


def reference(text: bytes, stops: Sequence[bytes]) -> bytes:
    """The text before the stop string that ends first, by trying every end."""
    for end in range(len(text) + 1):
        found = [stop for stop in stops if text[:end].endswith(stop)]
        if found:
            return text[: end - max(map(len, found))]
    return text
