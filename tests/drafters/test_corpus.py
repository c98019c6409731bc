import random

import pytest

from runnel.codecs.bytes import Bytes
from runnel.drafters import Draft, Drafter, corpus, hidden_transfer
from runnel.drafters.corpus import Config, Corpus
from runnel.generation import generate
from tests.decoding.support import RAGGED, sharp, stepped


class Nines(Drafter):
    """Guesses 9, and notes whom it was asked for and what it was told."""

    looks_back = True

    def begin(self, prompt, draw):
        return list(prompt)

    def propose(self, memory, budget):
        return Draft.chain([9])

    def advance(self, memory, tokens):
        memory.extend(tokens)

    def look_back(self, memory, seen):
        memory.append(seen)


class Nothing(Nines):
    def propose(self, memory, budget):
        return Draft([], [])


@pytest.mark.parametrize("bias", [0, 2])
def test_the_source_and_its_place_are_those_of_brute_force(bias):
    rng, sources = random.Random(bias), []
    documents = [[rng.randrange(3) for _ in range(length)] for length in (12, 1, 20, 7)]
    config = Config(texts=documents, bias=bias, min_match=2, max_draft=4, otherwise=Nines(None))
    drafter = Corpus(config)
    for _ in range(20):
        text = [rng.randrange(3)]
        memory = drafter.begin(text, draw=None)
        for _ in range(15):
            copy = rng.choice(documents)
            new = copy[rng.randrange(len(copy)) :][:6] if rng.random() < 0.3 else [rng.randrange(3)]
            text += new
            drafter.advance(memory, new)
            source, document, start = corpus.reference(documents, text, config)
            drafted = drafter.propose(memory, budget=5)
            assert drafted.parents == list(range(-1, len(drafted.tokens) - 1))
            if source == "text":
                assert drafted.tokens == (text + drafted.tokens)[start : start + 4]
            elif source == "corpus" and start < len(documents[document]):
                assert drafted.tokens == documents[document][start : start + 4]
            else:
                source = "other"
                assert drafted.tokens == [9]
            assert memory.other == text
            sources.append(source)
    assert min(sources.count(source) for source in ("text", "corpus", "other")) > 20


def test_no_match_goes_across_documents():
    drafter = Corpus(Config(texts=[[1, 2, 3], [4, 5, 6]], bias=0, min_match=2, otherwise=Nothing(None)))
    assert drafter.propose(drafter.begin([3, 4, 5], draw=None), 5).tokens == [6]
    assert drafter.propose(drafter.begin([2, 3], draw=None), 5).tokens == []
    assert drafter.propose(drafter.begin([3, 4], draw=None), 5).tokens == []


def test_rows_with_a_copy_do_not_ask_the_other_drafter():
    class Asked(Nines):
        def propose_all(self, memories, budgets):
            self.budgets = budgets
            return super().propose_all(memories, budgets)

    other = Asked(None)
    drafter = Corpus(Config(texts=[[1, 2, 3, 4]], bias=0, min_match=2, otherwise=other))
    memories = [drafter.begin(prompt, draw=None) for prompt in ([1, 2], [7, 7, 8], [1, 2])]
    drafts = drafter.propose_all(memories, [1, 6, 0])
    assert [draft.tokens for draft in drafts] == [[3], [9], []] and other.budgets == [0, 6, 0]
    drafter.look_back(memories[1], "seen")
    assert memories[1].other == [7, 7, 8, "seen"] and drafter.looks_back
    assert not Corpus(Config(otherwise="suffix")).looks_back


def test_files_are_read_by_the_codec(tmp_path):
    (tmp_path / "a.txt").write_bytes(b"to be or not to be")
    drafter = Corpus(Config(files=[tmp_path / "a.txt"], codec=Bytes(), bias=0, min_match=3, max_draft=5))
    memory = drafter.begin(list(b"whether it is nobler or n"), draw=None)
    assert bytes(drafter.propose(memory, 9).tokens) == b"ot to"


@pytest.mark.parametrize("pattern", ["attention", "mingru"])
def test_a_corpus_of_what_is_going_to_be_written_saves_calls(pattern):
    model = sharp(pattern)
    plain = [stepped(model, prompt, 24)[0] for prompt in RAGGED]
    texts = [prompt + tokens for prompt, tokens in zip(RAGGED, plain, strict=True)]
    options = {"max_new_tokens": 24, "decoder": "greedy"}
    config = Config(texts=texts, bias=0, min_match=3, otherwise=Nothing(None))
    with_corpus = generate(model, RAGGED, drafter=config, **options)
    without = generate(model, RAGGED, drafter=Config(min_match=3, otherwise=Nothing(None)), **options)
    assert with_corpus.tokens == without.tokens == plain
    assert with_corpus.stats["target_calls"] < without.stats["target_calls"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"bias": -1}, "bias must be at least 0; got -1"),
        ({"min_match": 0}, "min_match must be at least 1; got 0"),
        ({"max_draft": 0}, "max_draft must be at least 1; got 0"),
        ({"files": ["a.txt"]}, "the files of a corpus are read by a codec: give the codec too"),
        ({"files": ["no such file"], "codec": Bytes()}, "the files of a corpus must be there; got 'no such file'"),
        ({"otherwise": 3}, "a drafter must be given by name, by the Config of its page or as an object; got 3"),
    ],
)
def test_impossible_options_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        Corpus(Config(**options))


def test_the_other_drafter_is_told_where_the_model_stands():
    model = sharp()
    other = hidden_transfer.HiddenTransfer(hidden_transfer.Config(model, transfers=2))
    plain = generate(model, RAGGED, 8, decoder="greedy")
    found = generate(model, RAGGED, 8, decoder="greedy", drafter=corpus.Config(min_match=50, otherwise=other))
    assert found.tokens == plain.tokens
    assert found.stats["drafted"] > 0
