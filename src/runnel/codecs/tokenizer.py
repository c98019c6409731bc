"""Tokenizer: any tokenizer.json whose tokens stand for fixed bytes, as it comes with a published checkpoint.

Byte-level ones (GPT-2, Llama 3, Qwen) give every text back. Those of SentencePiece (Llama 2, Mistral, Gemma) write a
space as U+2581, and most put one in front of the text: their tokens join to the text with that space.

size: ids of the model; ids that no token has stand for nothing. Special tokens stand for their own text.
opening: the ids that the tokenizer puts in front of a text (usually one that says that it begins). `chat` writes a
conversation with the checkpoint's own template, in a sandbox.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from runnel.codecs._codec import FORMAT, Codec
from runnel.codecs._tokenizers import byte_of_letter, read, sha256, text_of, write_text
from runnel.storage import read_json, write_atomically, write_json

PAPERS: dict[str, str] = {}

_BYTE = re.compile(r"<0x([0-9A-Fa-f]{2})>")
_SPACE = "\u2581"
_ANSWER = "[~answer~]"
"""Stands for what the assistant said where only what follows it is wanted."""


class Checkpoint(Codec):
    """A tokenizer of a checkpoint. settings: its chat_template and the texts of its special tokens, as they came."""

    name = "tokenizer"

    def __init__(self, tokenizer: Tokenizer, size: int, settings: Mapping[str, Any] | None = None) -> None:
        pieces = _token_bytes(tokenizer)
        if len(pieces) > size:
            raise ValueError(f"the tokenizer must fit the {size} tokens of the model; its largest is {len(pieces) - 1}")
        super().__init__([*pieces, *[b""] * (size - len(pieces))])
        tokenizer.no_truncation()
        tokenizer.no_padding()
        self.settings = dict(settings or {})
        self.opening: list[int] = _opening(tokenizer)
        self._tokenizer, self._json = tokenizer, tokenizer.to_str()
        self.ends = frozenset([*([] if self.eos is None else [self.eos]), *self.settings.get("stops", ())])

    @property
    def fingerprint(self) -> str:
        return f"tokenizer-{sha256(self._json)[:16]}"

    @property
    def model(self) -> dict[str, Any]:
        """What tokenizer.json says of its pieces: type, vocab, merges."""
        return json.loads(self._json)["model"]

    @property
    def special(self) -> dict[int, str]:
        """The texts of the tokens that were added to the pieces."""
        return {token: entry.content for token, entry in self._tokenizer.get_added_tokens_decoder().items()}

    @property
    def eos(self) -> int | None:
        """The token that ends a text, when the checkpoint names one."""
        text = self.settings.get("eos_token")
        return None if text is None else self._tokenizer.token_to_id(text)

    def encode(self, text: str | bytes) -> list[int]:
        """Token ids, without the opening; the text of a special token is that token."""
        return list(self._tokenizer.encode(text_of(text), add_special_tokens=False).ids)

    def encode_batch(self, texts: Sequence[str | bytes]) -> list[list[int]]:
        encodings = self._tokenizer.encode_batch_fast([text_of(text) for text in texts], add_special_tokens=False)
        return [encoding.ids for encoding in encodings]

    def chat(
        self, messages: Sequence[Mapping[str, Any]], answer: bool = True, tools: Sequence[Any] | None = None
    ) -> list[int]:
        """A conversation, [{"role": "user", "content": "..."}, ...], by the checkpoint's template.

        answer: begin the answer of the assistant. tools: what it may call, as the template has it.
        ValueError where there is no template, or it says no.
        """
        return self.encode(self._written(messages, answer, tools))

    def turn(self, messages: Sequence[Mapping[str, Any]], newest: int | None) -> list[int]:
        """What follows an answer that was written: its end, the messages, and the beginning of the next answer.

        newest: the last token that was written; where it ends the answer, the end is not written again.
        """
        before = [{"role": "user", "content": "-"}, {"role": "assistant", "content": _ANSWER}]
        _, found, rest = self._written([*before, *messages], True, None).rpartition(_ANSWER)
        if not found:
            raise ValueError("the chat template leaves out what the assistant said")
        ids = self.encode(rest)
        return ids[1:] if newest in self.ends and ids and ids[0] in self.ends else ids

    def _written(self, messages: Sequence[Mapping[str, Any]], answer: bool, tools: Sequence[Any] | None) -> str:
        from jinja2 import TemplateError

        if "chat_template" not in self.settings:
            raise ValueError("this checkpoint has no chat template")
        named = {key: value for key, value in self.settings.items() if key.endswith("_token")}
        given = {"messages": list(messages), "tools": tools, "documents": None, "add_generation_prompt": answer}
        try:
            return _templates().from_string(self.settings["chat_template"]).render(**given, **named)
        except TemplateError as error:
            raise ValueError(f"the chat template cannot be used: {error}") from error

    def save(self, folder: str | Path) -> None:
        """Write tokenizer.json, then codec.json with its checksum: a mixed pair is noticed at `load`."""
        write_atomically(Path(folder) / "tokenizer.json", lambda path: write_text(path, self._json))
        record = {"format": FORMAT, "name": self.name, "vocab_size": self.vocab_size, "sha256": sha256(self._json)}
        write_json(Path(folder) / "codec.json", {**record, "settings": self.settings})


def templated(codec: Codec) -> Checkpoint | None:
    """The codec, where it says itself how conversations are written."""
    return codec if isinstance(codec, Checkpoint) and "chat_template" in codec.settings else None


def from_folder(folder: str | Path, size: int) -> Checkpoint:
    """The tokenizer of a folder in the Hugging Face layout, for a model of `size` tokens."""
    folder = Path(folder)
    given = _read(folder / "tokenizer_config.json")
    settings: dict[str, Any] = {key: _text(v) for key, v in given.items() if key.endswith("_token") and _text(v)}
    template = _template(folder, given.get("chat_template"))
    if template is not None:
        settings["chat_template"] = template
    stops = _read(folder / "generation_config.json").get("eos_token_id")
    if stops is not None:
        settings["stops"] = [token for token in ([stops] if isinstance(stops, int) else stops) if token < size]
    try:
        return Checkpoint(read(folder / "tokenizer.json"), size, settings)
    except ValueError as error:
        raise ValueError(f"{folder / 'tokenizer.json'}: {error}") from error


def _read(file: Path) -> dict[str, Any]:
    content = read_json(file) if file.is_file() else {}
    if not isinstance(content, dict):
        raise ValueError(f"{file} must be an object; got {type(content).__name__}")
    return content


def _template(folder: Path, given: Any) -> str | None:
    """How conversations are written: in a file of its own, or in the settings, perhaps as one of several."""
    file = folder / "chat_template.jinja"
    if file.is_file():
        return file.read_text(encoding="utf-8")
    if isinstance(given, list):
        given = {one["name"]: one["template"] for one in given}.get("default")
    return given if isinstance(given, str) else None


def load(folder: Path, record: dict[str, Any]) -> Checkpoint:
    """The codec of a saved folder. record: the content of its codec.json."""
    codec = Checkpoint(read(folder / "tokenizer.json"), record["vocab_size"], record.get("settings"))
    if sha256(codec._json) != record.get("sha256"):
        raise ValueError(f"{folder / 'tokenizer.json'} is not the one that codec.json was saved with")
    return codec


def _text(token: Any) -> str | None:
    """A special token, written as its text or as an object that has it."""
    return token.get("content") if isinstance(token, Mapping) else token if isinstance(token, str) else None


def _opening(tokenizer: Tokenizer) -> list[int]:
    whole, plain = [tokenizer.encode("a", add_special_tokens=special).ids for special in (True, False)]
    starts = [i for i in range(len(whole) - len(plain) + 1) if whole[i : i + len(plain)] == plain]
    return whole[: starts[0]] if starts else []


def _token_bytes(tokenizer: Tokenizer) -> list[bytes]:
    """For each id its bytes. ValueError where they depend on what stands around a token."""
    decoder = json.loads(tokenizer.to_str()).get("decoder") or {}
    kinds = {part.get("type") for part in decoder.get("decoders", [decoder])}
    added = {token: entry.content for token, entry in tokenizer.get_added_tokens_decoder().items()}
    vocabulary = tokenizer.get_vocab(with_added_tokens=True)
    pieces = [b""] * (max(vocabulary.values()) + 1)
    if not kinds & {"ByteLevel", "ByteFallback", "Metaspace"}:
        raise ValueError(f"its tokens do not stand for fixed bytes (decoder {', '.join(map(str, sorted(kinds)))})")
    letters = byte_of_letter() if "ByteLevel" in kinds else None
    for written, token in vocabulary.items():
        pieces[token] = added[token].encode() if token in added else _bytes_of(written, letters)
    return pieces


def _bytes_of(written: str, letters: Mapping[str, int] | None) -> bytes:
    if letters is not None and all(letter in letters for letter in written):
        return bytes(letters[letter] for letter in written)
    single = _BYTE.fullmatch(written)
    return bytes([int(single[1], 16)]) if single else written.replace(_SPACE, " ").encode()


def _templates() -> Any:
    """Templates as transformers reads them, in a sandbox."""
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    made = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols"])
    made.filters["tojson"] = _json
    made.globals["raise_exception"] = _refuse
    made.globals["strftime_now"] = lambda form: datetime.now().strftime(form)
    return made


def _json(value: Any, indent: int | None = None) -> str:
    """JSON as it is: what Jinja's own filter writes is meant for HTML."""
    return json.dumps(value, ensure_ascii=False, indent=indent)


def _refuse(reason: str) -> None:
    from jinja2 import TemplateError

    raise TemplateError(reason)
