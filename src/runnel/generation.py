"""Generation: `generate` continues prompts with any model, decoder and drafter; `score` says how likely texts are.

The loop is `runnel.decode_loop`. Because a pick depends only on the logits, the row's seed and the position (see
`runnel.ops.sampling`), the text is the same whatever the drafter, the other rows of the batch and the chunks of the
prefill, as far as the logits are: in float64 they differ by some 1e-15, in float32 by some 1e-6, and the text may
differ where two tokens come closer than that.
"""

from __future__ import annotations

import dataclasses
import operator
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, TypedDict

import torch

from runnel import catalog
from runnel.codecs import Codec
from runnel.decode_loop import Loop, OnTokens, Row
from runnel.decoders import Decoder
from runnel.drafters import Drafter
from runnel.model import Model
from runnel.prefill import CHUNK, prefill, prefill_scored
from runnel.processors import Processor
from runnel.state import State
from runnel.stopping import StopText

MAX_SEED = 2**63
PLAIN = {"temperature": 1.0, "top_k": None, "top_p": None, "min_p": None, "processors": ()}
"""Options of the decoder that `generate` takes beside its name, with the values that mean "not given"."""


class Stats(TypedDict):
    """target_calls: rounds, each one call of the model (the prefill is not counted). drafted: nodes proposed, over all
    rows. accepted: those committed; every round gives a row one token more than it accepted. seconds: wall time of the
    whole call.
    """

    target_calls: int
    drafted: int
    accepted: int
    seconds: float


@dataclass(frozen=True)
class Generation:
    """What was written after each prompt, in the order of the prompts; with n samples, those of a prompt in a row.

    tokens: the new tokens, the one that ended a row (an eos, the last of a stop string) included. logprobs: for each,
    its log-probability in nats under the model's own law (before processors, temperature and truncation).
    ended: why a row is no longer: "eos", "stop" or "length". texts: with a codec, what was written, up to a stop
    string. top_logprobs: for each token the likeliest ones in its place, likeliest first. state: of each row after all
    its tokens but the newest, so that `generate(model, [[newest], ...], state=state)` goes on without reading anything
    again.
    """

    tokens: list[list[int]]
    logprobs: list[list[float]]
    stats: Stats
    state: State
    ended: list[str | None]
    texts: list[str] = field(default_factory=list)
    top_logprobs: list[list[dict[int, float]]] = field(default_factory=list)


@torch.no_grad()
def generate(
    model: Model,
    prompts: Sequence[Sequence[int]],
    max_new_tokens: int | Sequence[int] = 64,
    decoder: str | Decoder | Any = "sample",
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
    processors: Sequence[str | Processor | Any] | Sequence[Sequence[str | Processor | Any]] = (),
    n: int = 1,
    stop: str | bytes | Sequence[str | bytes] = (),
    codec: Codec | None = None,
    top_logprobs: int = 0,
    read: Sequence[Sequence[int]] | None = None,
) -> Generation:
    """Continue each prompt (a list of at least one token id; their lengths may differ) by up to max_new_tokens tokens.

    decoder, drafter: the name of a page of `decoders/` or `drafters/`, or its Config, e.g.
        `suffix.Config(max_draft=8)`, or an object of one's own.
    temperature, top_k, top_p, min_p: options of a decoder given by name.
    processors: an option of it too: names, Configs or objects of `processors/`, e.g. `["typical", dry.Config()]`.
    max_new_tokens, temperature, top_k, top_p, min_p, processors: a list gives each prompt its own (for processors, a
        list of lists).
    n: samples for each prompt, which is read once.
    seed: row i (of prompts x samples) draws with seed + i, or with its own when a list is given.
    eos: the token or tokens that end a row.
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
    vocab_size = _vocabulary(model)
    texts = _texts(prompts, vocab_size)
    samples, chunk = _at_least("n", n, 1), _at_least("prefill_chunk", prefill_chunk, 1)
    limits = [_at_least("max_new_tokens", limit, 0) for limit in _each("max_new_tokens", max_new_tokens, len(texts))]
    stops = _stops(eos, vocab_size)
    options = {"temperature": temperature, "top_k": top_k, "top_p": top_p, "min_p": min_p, "processors": processors}
    decoders = _decoders(decoder, options, len(texts))
    for row_decoder, limit in zip(decoders, limits, strict=True):
        row_decoder.check(vocab_size, stops, limit)
    strings = _strings(stop, codec, vocab_size)
    top = min(_at_least("top_logprobs", top_logprobs, 0), vocab_size)
    loop = Loop(model, _drafter(drafter, vocab_size), on_tokens, top)

    seeds = _seeds(seed, len(texts), samples)
    state = _begin(model, state, len(texts))
    earlier, lengths = _earlier(read, state, vocab_size), state.lengths.tolist()
    rows = [
        Row(
            index=index,
            seed=row_seed,
            prompt=[*earlier[prompt], *texts[prompt]],
            position=lengths[prompt] + len(texts[prompt]),
            limit=limits[prompt],
            stops=stops,
            decoder=decoders[prompt],
            stop_text=None if codec is None else StopText(codec, strings),
        )
        for index, row_seed in enumerate(seeds)
        for prompt in [index // samples]
    ]
    state = prefill(model, [text[:-1] for text in texts], state, chunk)
    if samples > 1:
        state = state.fork([row.index // samples for row in rows])
    if loop.drafter is not None:
        for row in rows:
            row.memory = loop.drafter.begin(row.prompt, loop.draw_for(row))
    state = loop.until_done(rows, state)
    stats = Stats(
        target_calls=loop.target_calls,
        drafted=loop.drafted,
        accepted=loop.accepted,
        seconds=time.perf_counter() - started,
    )
    return Generation(
        tokens=[row.tokens for row in rows],
        logprobs=[row.logprobs for row in rows],
        stats=stats,
        state=state,
        ended=[row.ended for row in rows],
        texts=[row.stop_text.text.decode("utf-8", errors="replace") for row in rows if row.stop_text is not None],
        top_logprobs=[row.top_logprobs for row in rows],
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
    lists = _texts(texts, _vocabulary(model))
    top, chunk = _at_least("top_logprobs", top_logprobs, 0), _at_least("prefill_chunk", prefill_chunk, 1)
    return Scores(*prefill_scored(model, lists, _begin(model, state, len(lists)), chunk, top))


# ---- what the caller may mean -----------------------------------------------------------------------------------


def _vocabulary(model: Model) -> int:
    if model.config.vocab_size is None:
        raise ValueError(
            f"generate needs a model of tokens; this one is of values (value_dim {model.config.value_dim})"
        )
    return model.config.vocab_size


def _texts(prompts: Sequence[Sequence[int]], vocab_size: int) -> list[list[int]]:
    texts = [_text(prompt, row, vocab_size) for row, prompt in enumerate(prompts)]
    if not texts:
        raise ValueError("prompts must be a list of at least one list of token ids; got an empty list")
    return texts


def _text(prompt: Sequence[int], row: int, vocab_size: int) -> list[int]:
    try:
        text = [operator.index(token) for token in prompt]
    except TypeError:
        raise ValueError(f"prompts must be lists of token ids; got {prompt!r} at row {row}") from None
    if not text:
        raise ValueError(f"every prompt must have at least one token; got an empty one at row {row}")
    for position, token in enumerate(text):
        if not 0 <= token < vocab_size:
            raise ValueError(
                f"prompt tokens must lie in [0, {vocab_size}); got {token} at row {row}, position {position}"
            )
    return text


def _at_least(name: str, value: int, least: int) -> int:
    if value < least:
        raise ValueError(f"{name} must be at least {least}; got {value}")
    return value


def _each(name: str, value: Any, count: int) -> list[Any]:
    """One value for each prompt: the same, or the list's own."""
    if not isinstance(value, list | tuple):
        return [value] * count
    if len(value) != count:
        raise ValueError(f"{name} must be one value, or one for each of the {count} prompts; got {len(value)}")
    return list(value)


def _seeds(seed: int | Sequence[int], prompts: int, samples: int) -> list[int]:
    count = prompts * samples
    seeds = [seed + row for row in range(count)] if isinstance(seed, int) else [operator.index(s) for s in seed]
    if len(seeds) != count:
        rows = f"{prompts} prompts" if samples == 1 else f"{samples} samples of {prompts} prompts"
        raise ValueError(f"seed must be one number, or one for each of the {rows}; got {len(seeds)}")
    for row_seed in seeds:
        if not 0 <= row_seed < MAX_SEED:
            raise ValueError(f"seeds must lie in [0, 2^63); got {row_seed}")
    return seeds


def _stops(eos: int | Iterable[int] | None, vocab_size: int) -> frozenset[int]:
    stops = frozenset() if eos is None else frozenset([eos] if isinstance(eos, int) else eos)
    for token in stops:
        if not 0 <= token < vocab_size:
            raise ValueError(f"eos must be a token in [0, {vocab_size}); got {token}")
    return stops


def _begin(model: Model, state: State | None, count: int) -> State:
    if state is None:
        return model.init_state(batch_size=count)
    if state.batch_size != count:
        raise ValueError(f"state must have one row for each of the {count} prompts; got {state.batch_size}")
    return state


def _strings(stop: str | bytes | Sequence[str | bytes], codec: Codec | None, vocab_size: int) -> list[str | bytes]:
    strings = [stop] if isinstance(stop, str | bytes) else list(stop)
    if codec is None:
        if strings:
            raise ValueError("stop strings are looked for in the bytes of the tokens: give the codec too")
        return []
    if codec.vocab_size < vocab_size:
        raise ValueError(f"the codec must know the model's {vocab_size} tokens; this one knows {codec.vocab_size}")
    StopText(codec, strings)  # refuses empty ones
    return strings


def _earlier(read: Sequence[Sequence[int]] | None, state: State, vocab_size: int) -> list[list[int]]:
    """What each row of the state has read, as far as the caller says."""
    if read is None:
        return [[] for _ in range(state.batch_size)]
    lengths = state.lengths.tolist()
    if [len(tokens) for tokens in read] != lengths:
        raise ValueError(f"read must be the {lengths} tokens that the state has read; got {[len(r) for r in read]}")
    return [_text(tokens, row, vocab_size) if len(tokens) else [] for row, tokens in enumerate(read)]


def _decoders(decoder: str | Decoder | Any, options: dict[str, Any], count: int) -> list[Decoder]:
    """The decoder of each prompt; prompts with the same options share one."""
    values = {name: _each(name, value, count) for name, value in options.items() if name != "processors"}
    values["processors"] = _processors(options["processors"], count)
    made: list[tuple[dict[str, Any], Decoder]] = []
    found = []
    for row in range(count):
        wanted = {name: value[row] for name, value in values.items()}
        known = next((known for options, known in made if options == wanted), None)
        if known is None:
            known = _decoder(decoder, wanted)
            made.append((wanted, known))
        found.append(known)
    return found


def _processors(processors: Any, count: int) -> list[tuple[Any, ...]]:
    """The processors of each prompt: the same, or of a list of lists its own."""
    if not isinstance(processors, list | tuple):
        return [(processors,)] * count
    if processors and all(isinstance(own, list | tuple) for own in processors):
        return [tuple(own) for own in _each("processors", processors, count)]
    return [tuple(processors)] * count


def _decoder(decoder: str | Decoder | Any, options: dict[str, Any]) -> Decoder:
    """A decoder by name with the options that were given, by Config, or as it is."""
    given = {name: value for name, value in options.items() if value != PLAIN[name]}
    if isinstance(decoder, str):
        page = catalog.page("decoders", decoder)
        known = {f.name for f in dataclasses.fields(page.Config)}
        for name in given:
            if name not in known:
                raise ValueError(f"decoder {decoder!r} has no option {name!r}")
        return catalog.class_in(page, Decoder)(page.Config(**given))
    if given:
        raise ValueError(f"{', '.join(given)} belong beside the name of a decoder; got a decoder that is configured")
    made: Decoder = catalog.make("decoders", Decoder, decoder)
    return made


def _drafter(drafter: str | Drafter | Any | None, vocab_size: int) -> Drafter | None:
    """A drafter by name, by Config, or as it is."""
    if drafter is None:
        return None
    found: Drafter = catalog.make("drafters", Drafter, drafter)
    if found.vocab_size not in (None, vocab_size):
        raise ValueError(f"a drafter must know the target's {vocab_size} tokens; this one knows {found.vocab_size}")
    return found
