"""Tokenizers of checkpoints stand for fixed bytes, whichever library made them."""

import pytest
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers

from runnel import codecs
from runnel.codecs.tokenizer import Checkpoint


def sentencepiece() -> Tokenizer:
    """In the manner of Llama 2: a space is U+2581, one is put in front, what is not known is bytes."""
    vocabulary = {"<unk>": 0, **{f"<0x{i:02X}>": i + 1 for i in range(256)}}
    for piece in ("\u2581", "a", "b", "\u2581a"):
        vocabulary[piece] = len(vocabulary)
    made = Tokenizer(models.BPE(vocabulary, [("\u2581", "a")], byte_fallback=True, unk_token="<unk>"))
    made.normalizer = normalizers.Sequence([normalizers.Prepend("\u2581"), normalizers.Replace(" ", "\u2581")])
    made.decoder = decoders.Sequence(
        [decoders.Replace("\u2581", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    return made


def test_bytes_and_spaces_of_sentencepiece(tmp_path):
    codec = Checkpoint(sentencepiece(), 300)
    ids = codec.encode("a ab\n\u4e2d")
    assert codec.decode(ids) == " a ab\n\u4e2d"  # with the space that the tokenizer puts in front
    stream = codec.stream()
    assert "".join([*map(stream.push, ids), stream.finish()]) == codec.decode(ids)
    codec.save(tmp_path)
    loaded = codecs.load(tmp_path)
    assert loaded.fingerprint == codec.fingerprint and loaded.encode("a ab") == codec.encode("a ab")
    assert loaded.decode([299]) == ""


def test_words_that_depend_on_their_neighbours_are_refused():
    made = Tokenizer(models.WordPiece({"[UNK]": 0, "a": 1}, unk_token="[UNK]"))
    made.pre_tokenizer, made.decoder = pre_tokenizers.Whitespace(), decoders.WordPiece()
    with pytest.raises(ValueError, match=r"do not stand for fixed bytes .decoder WordPiece."):
        Checkpoint(made, 10)


def test_without_a_chat_template():
    with pytest.raises(ValueError, match="has no chat template"):
        Checkpoint(sentencepiece(), 300).chat([])
    with pytest.raises(ValueError, match="cannot be used: only users"):
        Checkpoint(sentencepiece(), 300, {"chat_template": "{{ raise_exception('only users') }}"}).chat([])
