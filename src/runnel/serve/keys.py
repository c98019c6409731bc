"""Keys: who may ask, and for how much. A file holds their hashes only.

A key is 256 random bits, so that one SHA-256 hides it; what is presented is compared with every hash in constant time.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from runnel.storage import read_json, write_json

NOBODY = "nobody"
"""The owner of everything on a server without keys."""


@dataclass(frozen=True)
class Key:
    """name: whose it is. sha256: of the key. requests: at most so many at once. state_bytes: kept at most."""

    name: str
    sha256: str
    requests: int = 128
    state_bytes: int = 1 << 30

    def __post_init__(self) -> None:
        if not self.name or len(self.name) > 64 or not self.name.isprintable() or "/" in self.name:
            raise ValueError(f"the name of a key must be 1 to 64 printable characters but /; got {self.name!r}")
        if len(self.sha256) != 64 or set(self.sha256) - set("0123456789abcdef"):
            raise ValueError(f"the sha256 of the key {self.name!r} must be 64 hexadecimal digits")


def hashed(key: str) -> str:
    return hashlib.sha256(key.encode("utf-8", errors="surrogateescape")).hexdigest()


ANYBODY = Key(NOBODY, "0" * 64, requests=1 << 31, state_bytes=1 << 62)
"""Who asks where there are no keys: the limits of the server are enough."""


class Keys:
    """The keys of a server. Without any, everybody is nobody and may ask."""

    def __init__(self, keys: Sequence[Key] = ()) -> None:
        names = [key.name for key in keys]
        if len(set(names)) < len(names) or NOBODY in names:
            raise ValueError(f"the names of keys must differ and not be {NOBODY!r}; got {', '.join(names)}")
        self.keys = list(keys)

    def __bool__(self) -> bool:
        return bool(self.keys)

    def holder(self, presented: str | None) -> Key | None:
        """Whose key it is; None when it is nobody's."""
        if not self.keys:
            return ANYBODY
        found, own = None, hashed(presented or "")
        for key in self.keys:  # all of them, so that the time says nothing
            if hmac.compare_digest(key.sha256, own):
                found = key
        return found

    @classmethod
    def load(cls, path: Path) -> Keys:
        """Read a file that `add` wrote. ValueError when it is damaged."""
        records = read_json(path)
        try:
            return cls([Key(**record) for record in records["keys"]])
        except (TypeError, KeyError) as error:
            raise ValueError(f"{path} is not a file of keys: {error}") from error


def add(path: Path, name: str) -> str:
    """Make a key for somebody and note its hash in the file. The key is told once, here."""
    known = Keys.load(path).keys if path.exists() else []
    key = f"rn-{secrets.token_urlsafe(32)}"
    keys = Keys([*known, Key(name, hashed(key))])
    write_json(path, {"keys": [asdict(key) for key in keys.keys]})
    path.chmod(0o600)
    return key
