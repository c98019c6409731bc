"""The law of bytes behind a law of tokens: recovered from a Markov chain, and equal to the definition."""

import pytest
import torch

import runnel
from runnel.codecs import bpe
from runnel.prompts import unbiased_bytes
from tests.decoding.support import sharp

PIECES = [b"", b"a", b"b", b"aa", b"ba", b"baa"]
CHAIN = torch.tensor([[0.3, 0.7], [0.6, 0.4]], dtype=torch.float64)  # from a or b, to a or b


class LongestFirst:
    """Maximum prefix encoding: the longest token that fits, again and again."""

    token_bytes = PIECES

    def encode(self, text):
        tokens = []
        while text:
            tokens.append(
                max(range(1, len(PIECES)), key=lambda t: len(PIECES[t]) if text.startswith(PIECES[t]) else -1)
            )
            text = text[len(PIECES[tokens[-1]]) :]
        return tokens


def law_of_tokens():
    """What follows every token in an endless text of the chain, counted by enumeration of all short texts to come."""
    texts, codec = torch.cartesian_prod(*[torch.arange(2)] * 6), LongestFirst()  # two tokens have at most six bytes
    law = torch.zeros(len(PIECES), len(PIECES), dtype=torch.float64)
    for last in (1, 2):  # the bytes before it do not matter once it is known where a token ends
        for token in range(1, len(PIECES)):
            if PIECES[token][-1:] != b"ab"[last - 1 : last]:
                continue
            for text in texts.tolist():
                p, at = 1.0, last - 1
                for byte in text:
                    p, at = p * float(CHAIN[at, byte]), byte
                found = codec.encode(PIECES[token] + bytes(b"ab"[byte] for byte in text))
                if found[0] == token:  # otherwise the encoding would not have stopped here
                    law[token, found[1]] += p
    law[0] = 1.0
    return law / law.sum(1, keepdim=True)


@pytest.fixture(scope="module")
def chain():
    """A model that says exactly what follows a token: it sees nothing but the newest."""
    model = runnel.build("mingru", vocab_size=len(PIECES), d_model=len(PIECES), channel=None).double()
    with torch.no_grad():
        model.layers[0].mixer.out.weight.zero_()
        model.embed.weight.copy_(torch.eye(len(PIECES)))
        model.head.logits.weight.copy_(law_of_tokens().clamp(min=1e-300).log().T / len(PIECES) ** 0.5)
    return model


@pytest.mark.parametrize("text", [b"a", b"b", b"ab", b"ba", b"bb", b"abba", b"bbaabab"])
def test_the_chain_behind_the_tokens_is_recovered(chain, text):
    codec = LongestFirst()
    found = unbiased_bytes.next_byte(chain, codec, text, before=[3]).exp()
    expected = CHAIN[b"ab".index(text[-1:])]
    torch.testing.assert_close(found[[97, 98]], expected, rtol=0, atol=1e-6)


def test_asking_the_tokens_directly_is_biased(chain):
    codec = LongestFirst()
    with torch.no_grad():
        law = chain(torch.tensor([[3, *codec.encode(b"b")]]))[0][0, -1].softmax(-1)
    direct = sum(float(p) for p, piece in zip(law, PIECES, strict=True) if piece.startswith(b"a"))
    assert direct < 1e-9 < float(CHAIN[1, 0])  # after the token b comes no a: it would have been the token ba


@pytest.mark.parametrize("text", ["", "the st", "the state of a va", "naïve stat"])
def test_equals_the_definition(text):
    codec = bpe.train(["the state of a model is a plain value; naïve states " * 20], 290)
    model = sharp("mamba2, attention", codec.vocab_size)
    whole = text.encode()
    found = unbiased_bytes.next_byte(model, codec, whole, before=[5, 6])
    if len(text) < 8:
        torch.testing.assert_close(found, unbiased_bytes.reference(model, codec, whole, [5, 6]), rtol=0, atol=1e-9)
    torch.testing.assert_close(found.exp().sum(), torch.tensor(1.0).double())


def test_a_text_without_anything_before_it(chain):
    with pytest.raises(ValueError, match="before must have at least one token; got none"):
        unbiased_bytes.next_byte(chain, LongestFirst(), b"a", before=[])


def test_a_text_that_is_not_utf8(chain):
    with pytest.raises(ValueError, match="text must be UTF-8"):
        unbiased_bytes.next_byte(chain, LongestFirst(), b"\xff" * 9, before=[2])
