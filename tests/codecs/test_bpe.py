"""BPE: every text comes back exactly, whatever was trained on; foreign tokenizers are refused with the reason."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tokenizers import Tokenizer, decoders, models, normalizers

from runnel import codecs
from runnel.codecs import bpe
from runnel.codecs.bpe import Bpe

TRAINING = ["the cat sat on the mat\n" * 20, "the hat that the cat had\n" * 20]
UNSEEN = "Übergröße 中文 😀\n\n\t  the cat  \x00"


@pytest.fixture(scope="module")
def codec() -> Bpe:
    return bpe.train(iter(TRAINING), vocab_size=300)


def test_unseen_text_comes_back_exactly(codec: Bpe) -> None:
    assert codec.decode(codec.encode(UNSEEN)) == UNSEEN
    assert codec.decode_bytes(codec.encode(UNSEEN.encode())) == UNSEEN.encode()
    assert codec.encode_batch([UNSEEN, "the"]) == [codec.encode(UNSEEN), codec.encode("the")]


def test_seen_text_is_shorter_and_ids_are_in_range(codec: Bpe) -> None:
    ids = codec.encode(TRAINING[0])
    assert len(ids) < len(TRAINING[0]) / 2
    assert 256 < codec.vocab_size <= 300
    assert max(ids) < codec.vocab_size


def test_the_byte_table_is_the_packages_own_decoding(codec: Bpe) -> None:
    tokenizer = Tokenizer.from_str(codec._json)
    for token in range(codec.vocab_size):
        assert codec.decode([token]) == tokenizer.decode([token])


def test_training_twice_gives_the_same_codec(codec: Bpe) -> None:
    assert bpe.train(iter(TRAINING), vocab_size=300).fingerprint == codec.fingerprint
    assert bpe.train(iter(TRAINING), vocab_size=258).fingerprint != codec.fingerprint


def test_stream_never_prints_half_a_character(codec: Bpe) -> None:
    stream = codec.stream()
    pieces = [stream.push(token) for token in codec.encode(UNSEEN)]
    assert "".join(pieces) + stream.finish() == UNSEEN
    assert not any("\ufffd" in piece for piece in pieces)
    half = codec.stream()
    assert half.push(codec.encode("😀")[0]) == ""
    assert half.finish() == "\ufffd"


def test_save_and_load(codec: Bpe, tmp_path: Path) -> None:
    codec.save(tmp_path)
    again = codecs.load(tmp_path)
    assert again.fingerprint == codec.fingerprint
    assert again.encode(UNSEEN) == codec.encode(UNSEEN)


def test_a_swapped_or_truncated_tokenizer_is_noticed(codec: Bpe, tmp_path: Path) -> None:
    codec.save(tmp_path)
    other = bpe.train(iter(["entirely different words here"]), vocab_size=280)
    (tmp_path / "tokenizer.json").write_text(other._json)
    with pytest.raises(ValueError, match=r"is not the one that codec\.json was saved with"):
        codecs.load(tmp_path)
    (tmp_path / "tokenizer.json").write_text(codec._json[:500])
    with pytest.raises(ValueError, match=r"is not a tokenizer\.json") as caught:
        codecs.load(tmp_path)
    assert "\n" not in str(caught.value)


def test_a_given_tokenizer_with_special_tokens_and_truncation(codec: Bpe, tmp_path: Path) -> None:
    tokenizer = Tokenizer.from_str(codec._json)
    tokenizer.add_special_tokens(["<|end|>"])
    tokenizer.enable_truncation(3)
    tokenizer.save(str(tmp_path / "t.json"))
    given = bpe.from_file(tmp_path / "t.json")
    assert given.vocab_size == codec.vocab_size + 1
    assert given.encode("cat<|end|>cat").count(codec.vocab_size) == 1
    assert given.decode(given.encode("cat<|end|>cat" + UNSEEN)) == "cat<|end|>cat" + UNSEEN


def test_tokenizers_that_lose_text_are_refused(codec: Bpe, tmp_path: Path) -> None:
    path = tmp_path / "t.json"
    lower = Tokenizer.from_str(codec._json)
    lower.normalizer = normalizers.Lowercase()
    lower.save(str(path))
    with pytest.raises(ValueError, match=r"t\.json: tokenizer must give a text back unchanged"):
        bpe.from_file(path)
    words = Tokenizer(models.WordLevel({"a": 0}, unk_token="a"))
    words.save(str(path))
    with pytest.raises(ValueError, match=r"must be byte-level .* got decoder None"):
        bpe.from_file(path)
    poor = Tokenizer(models.BPE(vocab={"a": 0}, merges=[]))
    poor.decoder = decoders.ByteLevel()
    poor.save(str(path))
    with pytest.raises(ValueError, match="255 are missing"):
        bpe.from_file(path)
    record = json.loads(codec._json)
    record["model"]["vocab"]["\u4e2d"] = codec.vocab_size
    path.write_text(json.dumps(record))
    with pytest.raises(ValueError, match="does not stand for bytes"):
        bpe.from_file(path)


def test_bad_input_is_refused() -> None:
    with pytest.raises(ValueError, match=r"vocab_size must be at least 256 .* got 100"):
        bpe.train(iter(["x"]), vocab_size=100)
    with pytest.raises(ValueError, match="must not be empty"):
        bpe.train(iter([""]), vocab_size=256)
    with pytest.raises(ValueError, match="position 1"):
        bpe.train(iter([b"a\xff"]), vocab_size=256)


def test_bytes_that_are_not_utf8_are_refused_with_their_position(codec: Bpe) -> None:
    with pytest.raises(ValueError, match="position 3"):
        codec.encode(b"abc\xff")
