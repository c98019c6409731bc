"""The suffix automaton finds what brute force finds, and stays small."""

import random

import pytest

from runnel.ops.suffix_automaton import RepeatingText, SuffixAutomaton, reference


def texts(alphabet, count, length):
    """Random texts that copy themselves now and then, which makes matches long enough for splits to move them."""
    rng = random.Random(alphabet)
    for _ in range(count):
        text = []
        while len(text) < length:
            text += text[rng.randrange(len(text)) :][:8] if text and rng.random() < 0.1 else [rng.randrange(alphabet)]
        yield text


@pytest.mark.parametrize("alphabet", [1, 2, 3, 10])
def test_the_longest_end_that_occurred_before_is_that_of_brute_force(alphabet):
    matched = 0
    for text in texts(alphabet, 15, 60):
        memory = RepeatingText()
        for at, token in enumerate(text):
            memory.append(token)
            length, end = reference(text[:at], text[: at + 1])
            assert (memory.match[1], memory.end(memory.match)) == (length, end)
            matched += length > 2
    assert matched > 20


@pytest.mark.parametrize("alphabet", [2, 3, 10])
def test_the_longest_match_of_another_text_is_that_of_brute_force(alphabet):
    matched = 0
    for text, other in zip(texts(alphabet, 15, 60), texts(alphabet + 1, 15, 60), strict=True):
        automaton, match, read = SuffixAutomaton(text), (0, 0), []
        for token in other[:30] + text[10:30]:
            read.append(token)
            match = automaton.follow(match, token)
            assert (match[1], automaton.end(match)) == reference(text, read)
            matched += match[1] > 2
    assert matched > 20


def test_every_substring_is_a_path_and_nothing_else():
    text = next(texts(3, 1, 30))
    automaton = SuffixAutomaton(text)
    substrings = {tuple(text[i:j]) for i in range(30) for j in range(i + 1, 31)}
    paths, level = set(), [((), 0)]
    while level:
        level = [((*path, token), to) for path, state in level for token, to in automaton.edges[state].items()]
        paths |= {path for path, _ in level}
    assert paths == substrings


def test_it_stays_small():
    """At most 2 states and 3 edges per token, whatever the text."""
    rng, automaton = random.Random(0), SuffixAutomaton()
    for count in range(1, 3000):
        automaton.append(rng.randrange(2))
        if count > 2:
            assert len(automaton.edges) <= 2 * count - 1
    assert sum(len(edges) for edges in automaton.edges) <= 3 * 2999
