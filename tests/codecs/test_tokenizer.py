"""Tokenizers of checkpoints stand for fixed bytes, whichever library made them."""

import json

import pytest
import transformers
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

from runnel import codecs
from runnel.codecs.tokenizer import Checkpoint, from_folder


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


CHAT = (
    "{{ bos_token }}{% for m in messages %}{% if m.role == 'tool' %}{% continue %}{% endif %}"
    "<|start|>{{ m.role }}\n{{ m.content }}<|end|>\n{% endfor %}"
    "{% if tools %}{{ tools | tojson }}{% endif %}{% if add_generation_prompt %}<|start|>assistant\n{% endif %}"
)
SAID = [
    {"role": "user", "content": "\u4e2d <b>"},
    {"role": "assistant", "content": "Well."},
    {"role": "user", "content": "?"},
]


@pytest.fixture
def folder(tmp_path):
    """A byte-level tokenizer with a beginning, an end and a template, as transformers writes one."""
    made = Tokenizer(models.BPE({c: i for i, c in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}, []))
    made.pre_tokenizer, made.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    made.add_special_tokens(["<|start|>", "<|end|>", "<s>", "<|stop|>"])
    made.post_processor = processors.TemplateProcessing("<s> $0", special_tokens=[("<s>", 258)])
    theirs = transformers.PreTrainedTokenizerFast(
        tokenizer_object=made, bos_token="<s>", eos_token="<|end|>", chat_template=CHAT
    )
    theirs.save_pretrained(tmp_path)
    (tmp_path / "generation_config.json").write_text('{"eos_token_id": [257, 259, 1000]}')
    return tmp_path, theirs


def test_templates_beginnings_and_ends_are_those_of_transformers(folder):
    place, theirs = folder
    codec = from_folder(place, 300)
    for said in (SAID[:1], SAID, [*SAID[:2], {"role": "tool", "content": "left out"}]):
        for answer in (True, False):
            for tools in (None, [{"name": "look up", "kind": "<i>"}]):
                asked = {"add_generation_prompt": answer, "tools": tools, "return_dict": False}
                assert codec.chat(said, answer, tools) == theirs.apply_chat_template(said, **asked)
    assert codec.begin("abc") == theirs("abc")["input_ids"] == codec.begin("<s>abc")
    assert codec.opening == [258] and codec.ends == {257, 259}
    codec.save(place / "saved")
    assert codecs.load(place / "saved").ends == codec.ends


def test_turns_are_the_conversation(folder):
    """Where an answer has ended of itself and where it was cut."""
    codec = from_folder(folder[0], 300)
    first, answer = codec.chat(SAID[:1]), codec.encode("Well.")
    assert [*first, *answer, *codec.turn(SAID[2:], answer[-1])] == codec.chat(SAID)
    assert [*first, *answer, 257, *codec.turn(SAID[2:], 257)] == codec.chat(SAID)
    codec.settings["chat_template"] = "{{ messages[-1].content }}"
    with pytest.raises(ValueError, match="leaves out what the assistant said"):
        codec.turn(SAID[2:], 257)


def test_one_of_several_templates(folder):
    place, _ = folder
    (place / "chat_template.jinja").unlink()
    settings = place / "tokenizer_config.json"
    several = [{"name": "tools", "template": "t"}, {"name": "default", "template": "{{ bos_token }}a"}]
    settings.write_text(json.dumps({**json.loads(settings.read_text()), "chat_template": several}))
    assert from_folder(place, 300).chat([]) == [258, *from_folder(place, 300).encode("a")]
