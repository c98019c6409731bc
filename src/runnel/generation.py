"""Generation: `generate` continues prompts with any model, decoder and drafter; `score` says how likely texts are.

The loop is `runnel.decode_loop`. Because a pick depends only on the logits, the row's seed and the position (see
`runnel.ops.sampling`), the text is the same whatever the drafter, the other rows of the batch and the chunks of the
prefill, as far as the logits are: in float64 they differ by some 1e-15, in float32 by some 1e-6, and the text may
differ where two tokens come closer than that.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypedDict

import torch

from runnel import catalog
from runnel.acceptance import Acceptance
from runnel.codecs import Codec
from runnel.decode_loop import Loop, OnTokens
from runnel.decoders import Decoder
from runnel.drafters import Drafter
from runnel.guidance import First, Guidance, Guided
from runnel.model import Model, TextModel, TextReader
from runnel.policies import LengthPolicy
from runnel.prefill import CHUNK, prefill, prefill_hidden, prefill_scored
from runnel.processors import Processor
from runnel.request import (
    at_least,
    decoders_of,
    drafter_of,
    each,
    earlier_of,
    search_of,
    seeds_of,
    state_of,
    stops_of,
    strings_of,
    texts_of,
    vocabulary_of,
)
from runnel.rows import Row
from runnel.search import Hypothesis, Search, Task, search_all
from runnel.state import State, gathered
from runnel.stopping import StopText


class Stats(TypedDict):
    """target_calls: rounds, each one call of the model (the prefill is not counted). drafted: nodes proposed, over all
    rows. accepted: those committed; every round gives a row one token more than it accepted. seconds: wall time of the
    whole call; draft_seconds: what of it the drafter and its policy took.
    """

    target_calls: int
    drafted: int
    accepted: int
    seconds: float
    draft_seconds: float


@dataclass(frozen=True)
class Generation:
    """What was written after each prompt, in the order of the prompts; with n samples, those of a prompt in a row.

    tokens: the new tokens, the one that ended a row (an eos, the last of a stop string) included. logprobs: for each,
    its log-probability in nats under the model's own law (before processors, temperature and truncation).
    ended: why a row is no longer: "eos", "stop" or "length". texts: with a codec, what was written, without the eos and
    up to a stop string. top_logprobs: for each token the likeliest ones in its place, likeliest first. state: of each
    row after all its tokens but the newest, so that `generate(model, [[newest], ...], state=state)` goes on without
    reading anything again. scores: what a search ranked each text by. prompts: the prompt that each text follows, by
    index.
    """

    tokens: list[list[int]]
    logprobs: list[list[float]]
    stats: Stats
    state: State
    ended: list[str | None]
    texts: list[str] = field(default_factory=list)
    top_logprobs: list[list[dict[int, float]]] = field(default_factory=list)
    scores: list[float] = field(default_factory=list)
    prompts: list[int] = field(default_factory=list)


@torch.no_grad()
def generate(
    model: Model,
    prompts: Sequence[Sequence[int]],
    max_new_tokens: int | Sequence[int] = 64,
    decoder: str | Decoder | Search | Any = "sample",
    drafter: str | Drafter | Any | None = None,
    temperature: float | Sequence[float] = 1.0,
    top_k: int | Sequence[int | None] | None = None,
    top_p: float | Sequence[float | None] | None = None,
    min_p: float | Sequence[float | None] | None = None,
    seed: int | Sequence[int] = 0,
    eos: int | Iterable[int] | None = None,
    state: State | None = None,
    on_tokens: OnTokens | None = None,
    prefill_chunk: int = CHUNK,
    *,
    acceptance: str | Acceptance | Any = "match",
    length: str | LengthPolicy | Any | None = None,
    processors: Sequence[str | Processor | Any] | Sequence[Sequence[str | Processor | Any]] = (),
    guidance: Guidance | Any | None = None,
    n: int = 1,
    stop: str | bytes | Sequence[str | bytes] = (),
    codec: Codec | None = None,
    top_logprobs: int = 0,
    read: Sequence[Sequence[int]] | None = None,
) -> Generation:
    """Continue each prompt (a list of at least one token id; their lengths may differ) by up to max_new_tokens tokens.

    decoder, drafter: the name of a page of `decoders/` or `drafters/`, or its Config, e.g.
        `suffix.Config(max_draft=8)`, or an object of one's own.
    acceptance: a page of `acceptance/`, in the same ways: which drafts become text. With `match` the text does not
        depend on the drafter; with another lossless rule its law does not.
    length: a page of `policies/`, in the same ways: how much is drafted in a round. By default what the drafter is
        meant for.
    temperature, top_k, top_p, min_p: options of a decoder given by name.
    processors: an option of it too: names, Configs or objects of `processors/`, e.g. `["typical", dry.Config()]`.
    guidance: the Config of a page of `guidance/`, e.g. `cfg.Config(scale=1.5)`: the text follows several streams, each
        with a prompt of its own; logprobs are of their joint law, and the state holds all of them.
    max_new_tokens, temperature, top_k, top_p, min_p, processors: a list gives each prompt its own (for processors, a
        list of lists).
    n: samples for each prompt, which is read once; of a search, its n best texts, best first.
    seed: row i (of prompts x samples) draws with seed + i, or with its own when a list is given.
    eos: the token or tokens that end a row. They are of its tokens, not of its text.
    stop: strings that end a row; they may begin and end within tokens, and are looked for in what is written only.
    codec: what the tokens stand for; needed for `stop`, and gives `Generation.texts`.
    top_logprobs: how many of the likeliest tokens to note at every place.
    state: what the rows had read before the prompts; by default nothing. Positions, which key the randomness, go on
        from it: a text written in two calls is the text written in one.
    read: the tokens that `state` has read, where drafters and processors that look at the text should know them.
    on_tokens(i, tokens): called after each round for each row i that is written; all but the last token are accepted
        drafts.

    ValueError, in one line, for whatever cannot be meant.
    """
    started = time.perf_counter()
    vocab_size = vocabulary_of(model)
    texts = texts_of(prompts, vocab_size)
    samples, chunk = at_least("n", n, 1), at_least("prefill_chunk", prefill_chunk, 1)
    limits = [at_least("max_new_tokens", limit, 0) for limit in each("max_new_tokens", max_new_tokens, len(texts))]
    stops = stops_of(eos, vocab_size)
    options = {"temperature": temperature, "top_k": top_k, "top_p": top_p, "min_p": min_p, "processors": processors}
    decoders = decoders_of(decoder, options, len(texts))
    strings = strings_of(stop, codec, vocab_size)
    top = min(at_least("top_logprobs", top_logprobs, 0), vocab_size)
    search = search_of(decoders, drafter, top)
    seeds = seeds_of(seed, len(texts), samples if search is None else 1)
    guided, reader = _guided(model, guidance)
    state = state_of(guided, state, len(texts))
    earlier, lengths = earlier_of(read, state, vocab_size), state.lengths.tolist()
    whole = [[*before, *text] for before, text in zip(earlier, texts, strict=True)]
    positions = [length + len(text) for length, text in zip(lengths, texts, strict=True)]
    stop_text = None if codec is None else StopText(codec, strings, stops)
    unread = [text[:-1] for text in texts]
    if isinstance(guided, Guided):
        state = guided.begun(state, texts, chunk)

    if search is not None:
        tasks = [
            Task(text, row_seed, position, limit, stops, samples, stop_text)
            for text, row_seed, position, limit in zip(whole, seeds, positions, limits, strict=True)
        ]
        for task in tasks:
            search.check(vocab_size, stops, task.limit, samples)
        if search.reads_hidden:
            hidden, state = prefill_hidden(reader, unread, state, chunk)
            tasks = [replace(task, hidden=own) for task, own in zip(tasks, hidden, strict=True)]
        else:
            state = prefill(reader, unread, state, chunk)
        found, calls = search_all(guided, state, tasks, search)
        return _searched(found, calls, time.perf_counter() - started, stop_text, on_tokens)

    for row_decoder, limit in zip(decoders, limits, strict=True):
        row_decoder.check(vocab_size, stops, limit)
    rows = [
        Row(
            index=index,
            seed=row_seed,
            prompt=whole[prompt],
            position=positions[prompt],
            limit=limits[prompt],
            stops=stops,
            decoder=decoders[prompt],
            stop_text=None if stop_text is None else stop_text.after([]),
            top=top,
        )
        for index, row_seed in enumerate(seeds)
        for prompt in [index // samples]
    ]
    proposer = drafter_of(drafter, vocab_size)
    length = length or ("fixed" if proposer is None else proposer.policy)
    policy = catalog.make("policies", LengthPolicy, length)
    loop = Loop(guided, proposer, catalog.make("acceptance", Acceptance, acceptance), policy, on_tokens)
    for row_decoder in decoders:
        loop.acceptance.check(row_decoder)
    state = _begun(loop, reader, rows, unread, state, samples, chunk)
    state = loop.until_done(rows, state)
    stats = Stats(
        target_calls=loop.target_calls,
        drafted=loop.drafted,
        accepted=loop.accepted,
        seconds=time.perf_counter() - started,
        draft_seconds=loop.draft_seconds,
    )
    return Generation(
        tokens=[row.tokens for row in rows],
        logprobs=[row.logprobs for row in rows],
        stats=stats,
        state=state,
        ended=[row.ended for row in rows],
        texts=[row.stop_text.text.decode("utf-8", errors="replace") for row in rows if row.stop_text is not None],
        top_logprobs=[row.top_logprobs for row in rows],
        prompts=[row.index // samples for row in rows],
    )


def _guided(model: Model, guidance: Guidance | Any | None) -> tuple[TextModel, TextReader]:
    """What is decoded, and what reads the prompts."""
    if guidance is None:
        return model, model
    guided = Guided(model, guidance)
    return guided, First(guided)


def _begun(
    loop: Loop,
    reader: TextReader,
    rows: Sequence[Row],
    unread: Sequence[list[int]],
    state: State,
    samples: int,
    chunk: int,
) -> State:
    """The state of the rows that have read their prompts but the newest token; their drafter knows them too."""
    drafter, hidden = loop.drafter, list[torch.Tensor]()
    if drafter is not None and drafter.reads_hidden:
        hidden, state = prefill_hidden(reader, unread, state, chunk)
    else:
        state = prefill(reader, unread, state, chunk)
    if drafter is not None:
        own = loop.model.own_state(state)
        for row in rows:
            row.memory = drafter.begin(row.prompt, loop.draw_for(row))
            if hidden:
                drafter.read(row.memory, hidden[row.index // samples])
            drafter.stand(row.memory, (own, row.index // samples))
    return state if samples == 1 else state.fork([row.index // samples for row in rows])


def _searched(
    found: Sequence[Sequence[Hypothesis]],
    calls: int,
    seconds: float,
    stop_text: StopText | None,
    on_tokens: OnTokens | None,
) -> Generation:
    """What a search found, as a generation."""
    each_found = [(prompt, text) for prompt, own in enumerate(found) for text in own]
    if on_tokens is not None:
        for index, (_, text) in enumerate(each_found):
            on_tokens(index, text.tokens)
    texts = [] if stop_text is None else [stop_text.after(text.tokens).text for _, text in each_found]
    return Generation(
        tokens=[text.tokens for _, text in each_found],
        logprobs=[text.logprobs for _, text in each_found],
        stats=Stats(target_calls=calls, drafted=0, accepted=0, seconds=seconds, draft_seconds=0.0),
        state=gathered([text.place for _, text in each_found]),
        ended=[text.ended for _, text in each_found],
        texts=[text.decode("utf-8", errors="replace") for text in texts],
        scores=[text.score for _, text in each_found],
        prompts=[prompt for prompt, _ in each_found],
    )


@dataclass(frozen=True)
class Scores:
    """How likely a model finds given texts.

    logprobs: of every token but the first of each text (which nothing precedes), in nats. top_logprobs: the likeliest
    tokens in its place, likeliest first. state: after all tokens but the last, so that a text is continued by
    `generate(model, [text[-1:] for text in texts], state=scores.state, read=[text[:-1] for text in texts])`.
    """

    logprobs: list[list[float]]
    top_logprobs: list[list[dict[int, float]]]
    state: State


@torch.no_grad()
def score(
    model: Model,
    texts: Sequence[Sequence[int]],
    top_logprobs: int = 0,
    state: State | None = None,
    prefill_chunk: int = CHUNK,
) -> Scores:
    """The log-probabilities of the tokens of given texts, or prompts (a list of at least one token id each).

    state: what the rows had read before the texts; by default nothing.

    ValueError, in one line, for whatever cannot be meant.
    """
    lists = texts_of(texts, vocabulary_of(model))
    top, chunk = at_least("top_logprobs", top_logprobs, 0), at_least("prefill_chunk", prefill_chunk, 1)
    return Scores(*prefill_scored(model, lists, state_of(model, state, len(lists)), chunk, top))
