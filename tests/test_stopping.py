"""Stop strings: the cut depends on the bytes, never on the borders of the tokens."""

import random

import pytest

from runnel.codecs._codec import Codec
from runnel.codecs.bytes import Bytes
from runnel.stopping import StopText, reference


class Pieces(Codec):
    """Every token is a run of bytes."""

    name = "pieces"

    def encode(self, text):
        raise NotImplementedError


def read(codec, tokens, stops):
    """(text, what was released, found)."""
    text, released = StopText(codec, stops), b""
    for token in tokens:
        released += text.push(token)
        assert text.text.startswith(released)
        if text.found:
            break
    return text.text, released + text.finish(), text.found


def test_any_split_into_tokens_gives_the_reference():
    rng = random.Random(0)
    for _ in range(300):
        whole = bytes(rng.choices(b"abc", k=rng.randrange(0, 30)))
        stops = [bytes(rng.choices(b"abc", k=rng.randrange(1, 5))) for _ in range(rng.randrange(0, 4))]
        cuts = sorted(rng.choices(range(len(whole) + 1), k=rng.randrange(0, 8)))
        pieces = [whole[a:b] for a, b in zip([0, *cuts], [*cuts, len(whole)], strict=True)]
        text, released, found = read(Pieces(pieces), range(len(pieces)), stops)
        assert text == released == reference(whole, stops)
        assert found == any(stop in whole for stop in stops)


def test_what_may_begin_a_stop_string_is_held_back():
    text = StopText(Bytes(), ["\n\nEnd"])
    assert [text.push(byte) for byte in b"a\n\nEx\n"] == [b"a", b"", b"", b"", b"\n\nEx", b""]
    assert text.finish() == b"\n"


def test_characters_of_several_bytes():
    text, _, found = read(Bytes(), "grün; blau".encode(), ["ün", "; "])
    assert (text, found) == (b"gr", True)


def test_an_empty_stop_string_is_refused():
    with pytest.raises(ValueError, match="at least one character; got an empty one"):
        StopText(Bytes(), ["a", ""])


def test_a_token_that_ends_the_text_is_no_part_of_it_and_releases_nothing():
    text = StopText(Pieces([b"a", b"bc", b"<end>"]), ["ab", "c<"], ends={2})
    assert (text.push(0), text.push(2), text.finish(), text.text) == (b"", b"", b"a", b"a")
    assert text.after([1, 2]).text == b"bc" and not text.after([1, 2]).found
