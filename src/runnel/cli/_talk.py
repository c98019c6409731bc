"""Who `runnel chat` talks with: a model that is here, or a server. Both keep the conversation as a state."""

from __future__ import annotations

import json
import os
import urllib.error
import urllib.request
from codecs import getincrementaldecoder
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from runnel.state import State

Show = Callable[[str], None]
STOPS = ("\nuser:", "\nsystem:", "\ntool:")
"""What would begin somebody else's turn."""


class Partner(Protocol):
    """Who answers."""

    def answer(self, message: str, show: Show) -> str:
        """The answer to a message; `show` is given it piece by piece."""


class Local:
    """A model in this process. options: of `runnel.generate`. A checkpoint's own template says how turns are written;
    without one, they are lines `user: ...` and `assistant: ...`.
    """

    def __init__(self, model: Any, codec: Any, options: dict[str, Any]) -> None:
        from runnel.codecs.tokenizer import templated

        self.model, self.codec, self.options = model, codec, options
        self.state: State | None = None
        self.newest: list[int] = []
        self.template = templated(codec)
        self.stops = STOPS if self.template is None else ()

    def answer(self, message: str, show: Show) -> str:
        from runnel.generation import generate
        from runnel.stopping import StopText

        prompt, ends = [*self.newest, *self._turn(message)], self.codec.ends
        shown, characters = StopText(self.codec, self.stops, ends), getincrementaldecoder("utf-8")("replace")
        told = list[str]()

        def hear(row: int, tokens: list[int]) -> None:
            for token in tokens:
                told.append(characters.decode(shown.push(token)))
                show(told[-1])

        options = {"codec": self.codec, "stop": self.stops, "eos": ends, **self.options}
        written = generate(self.model, [prompt], state=self.state, on_tokens=hear, **options)
        told.append(characters.decode(b"" if shown.found else shown.finish(), final=True))
        show(told[-1])
        self.state, self.newest = written.state, [[*prompt, *written.tokens[0]][-1]]
        return "".join(told)

    def _turn(self, message: str) -> list[int]:
        """What the model reads of a message: what ends its own last answer, the message, and that it is to answer."""
        if self.template is None:
            turn = f"user: {message}\nassistant:"
            return self.codec.begin(turn) if self.state is None else self.codec.encode(f"\n{turn}")
        said = [{"role": "user", "content": message}]
        if self.state is None:
            return self.template.chat(said)
        return self.template.turn(said, self.newest[0])


class Remote:
    """A server. The conversation is a state there; only what is new is sent."""

    def __init__(self, address: str, key: str | None, options: dict[str, Any]) -> None:
        self.address, self.options, self.state = address.rstrip("/"), options, ""
        self.headers = {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {key}"} if key else {})

    def answer(self, message: str, show: Show) -> str:
        asked = {"messages": [{"role": "user", "content": message}], "stream": True, "save_state": True, **self.options}
        asked |= {"state": self.state} if self.state else {}
        told, before = list[str](), self.state
        for event in self._events(asked):
            if "error" in event:
                raise OSError(event["error"]["message"])
            (choice,) = event["choices"]
            told.append(choice["delta"].get("content") or "")
            show(told[-1])
            self.state = choice.get("state", self.state)
        if before:
            self._request(f"/v1/states/{before}", method="DELETE").close()
        return "".join(told)

    def _events(self, asked: dict[str, Any]) -> Iterator[dict[str, Any]]:
        with self._request("/v1/chat/completions", json.dumps(asked).encode()) as response:
            for line in response:
                if line.startswith(b"data: {"):
                    yield json.loads(line.removeprefix(b"data: "))

    def _request(self, path: str, body: bytes | None = None, method: str | None = None) -> Any:
        request = urllib.request.Request(self.address + path, body, self.headers, method=method)
        try:
            return urllib.request.urlopen(request, timeout=600)
        except urllib.error.HTTPError as error:
            with error:
                said = json.loads(error.read() or b"{}").get("error", {}).get("message", error.reason)
            kind = OSError if error.code == 429 or error.code >= 500 else ValueError
            raise kind(f"{self.address} says: {said}") from None
        except urllib.error.URLError as error:
            raise OSError(f"{self.address} does not answer: {error.reason}") from None


def partner(place: str, weights: str | None, options: dict[str, Any]) -> Partner:
    """A server for an address, else the model of a folder."""
    if place.startswith(("http://", "https://")):
        names = {"max_new_tokens": "max_tokens"}
        asked = {names.get(name, name): value for name, value in options.items()}
        return Remote(place, os.environ.get("RUNNEL_API_KEY"), asked)
    from runnel import codecs
    from runnel.cli.generate import load_run, packed

    run = Path(place)
    return Local(packed(load_run(run), weights), codecs.load(run), options)
