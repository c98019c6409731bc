"""Text to token ids and back, one codec a file. The name of a codec is the name of its file."""

from __future__ import annotations

from pathlib import Path
from typing import cast

from runnel import catalog
from runnel.codecs._codec import FORMAT, Codec, StreamDecoder
from runnel.storage import read_json

__all__ = ["Codec", "StreamDecoder", "load"]


def load(folder: str | Path) -> Codec:
    """The codec that was saved into a folder (codec.json, for BPE also tokenizer.json).

    ValueError when codec.json is missing, damaged, or not one of Runnel's.
    """
    path = Path(folder) / "codec.json"
    if not path.is_file():
        raise ValueError(f"{folder} must hold a codec.json; there is none")
    record = read_json(path)
    if not isinstance(record, dict) or record.get("format") != FORMAT:
        raise ValueError(f'{path} is not a codec: it must say "format": "{FORMAT}"')
    name = record.get("name")
    if name not in catalog.names("codecs"):
        raise ValueError(f"{path} names the codec {name!r}; known codecs: {', '.join(catalog.names('codecs'))}")
    return cast(Codec, catalog.page("codecs", name).load(Path(folder), record))
