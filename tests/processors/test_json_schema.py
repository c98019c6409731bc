import json

import pytest

import runnel
from runnel.codecs import bpe
from runnel.codecs.bytes import Bytes
from runnel.decoders import beam
from runnel.drafters import draft_model, suffix
from runnel.processors import json_schema

from .support import sharp

PERSON = {
    "type": "object",
    "properties": {
        "name": {"enum": ["ann", "bo", "é"]},
        "age": {"type": "integer"},
        "likes": {"type": "array", "items": {"type": "boolean"}, "minItems": 1, "maxItems": 3},
    },
    "required": ["name", "likes"],
    "additionalProperties": False,
}
LIST = {"type": "array", "items": {"enum": [None, True, 3, "a\nb"]}, "maxItems": 2}


def codecs():
    return [Bytes(), bpe.train([json.dumps({"name": "ann", "age": 12, "likes": [True, False]})] * 30, 290)]


@pytest.mark.parametrize("schema", [PERSON, LIST], ids=["object", "array"])
@pytest.mark.parametrize("whitespace", [None, "[ ]?"])
def test_what_ends_is_a_value_of_the_schema(schema, whitespace):
    for codec in codecs():
        config, model = json_schema.Config(schema, codec, whitespace), sharp(vocab_size=codec.vocab_size)
        options = {"processors": [config], "eos": 0, "max_new_tokens": 80, "temperature": 10.0}
        plain = runnel.generate(model, [[65]] * 4, **options)
        assert plain.ended.count("eos") >= 2
        found = runnel.generate(model, [[65]], 60, decoder=beam.Config(width=3, processors=[config]), eos=0)
        for tokens, why in zip(plain.tokens + found.tokens, plain.ended + found.ended, strict=True):
            if why == "eos":
                assert json_schema.reference(codec.decode(tokens[:-1]), schema), codec.decode(tokens)
        for drafter in (suffix.Config(min_match=1), draft_model.Config(model)):
            assert runnel.generate(model, [[65]] * 4, drafter=drafter, **options).tokens == plain.tokens


def test_the_reference_tells_values_apart():
    assert json_schema.reference('{"name":"bo","likes":[true]}', PERSON)
    for text in ('{"name":"bo","likes":[]}', '{"name":"x","likes":[true]}', '{"likes":[true]}', '{"name":"bo"', "[]"):
        assert not json_schema.reference(text, PERSON)
    assert not json_schema.reference("true", {"type": "integer"}) and json_schema.reference("3", {"type": "integer"})


@pytest.mark.parametrize(
    ("schema", "message"),
    [
        ({"type": "integer", "minimum": 5, "maximum": 3}, "json_schema cannot be followed: Unsatisfiable schema"),
        ({"enum": []}, "json_schema cannot be followed: Unsatisfiable schema"),
        ({"not": {"type": "string"}}, "json_schema cannot be followed: Unimplemented keys"),
        ({"type": "text"}, "json_schema cannot be followed: Invalid type: text"),
    ],
)
def test_what_cannot_be_meant_is_refused(schema, message):
    with pytest.raises(ValueError, match=message):
        runnel.generate(sharp(vocab_size=256), [[1]], processors=[json_schema.Config(schema, Bytes())], eos=0)
