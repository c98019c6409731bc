"""A conversation with a model that is here, and the same one with a server."""

import io
import json
import sys

import pytest

from runnel import native
from tests.serve.conftest import run, serving  # noqa: F401

MESSAGES = "Hello there\n\nAnd then?\nWhy?\n"


@pytest.fixture
def chat(in_process, monkeypatch, tmp_path):
    def talk(*arguments):
        monkeypatch.setattr(sys, "stdin", io.StringIO(MESSAGES))
        return in_process(["chat", *arguments], tmp_path)

    return talk


def test_a_server_says_what_a_model_here_says(chat, run):  # noqa: F811
    weights = ("--weights", "f32") if native.available() else ()
    code, here, _ = chat(run, "--json", "--max-tokens", 30, *weights)
    assert code == 0
    said = json.loads(here)
    assert [line["content"] for line in said[::2]] == ["Hello there", "And then?", "Why?"]
    assert all(line["content"] for line in said[1::2])
    with serving(run) as client:
        code, there, _ = chat(str(client.base_url), "--json", "--max-tokens", 30)
        assert len(client.get("/v1/states").json()["data"]) == 1  # of the whole conversation
    assert code == 0
    assert [line["content"].removeprefix(" ") for line in said] == [line["content"] for line in json.loads(there)]


def test_who_is_not_there_is_said_in_one_line(chat, tmp_path):
    code, out, error = chat("http://127.0.0.1:9")
    assert (code, out, error.count("\n")) == (1, "", 1)
    assert "does not answer" in error
    assert chat(tmp_path / "nothing")[0] == 2
