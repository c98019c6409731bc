"""Generation: `generate` continues prompts with any model, decoder and drafter.

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
from dataclasses import dataclass
from types import ModuleType
from typing import Any, TypedDict

import torch

from runnel import catalog
from runnel.decode_loop import Loop, OnTokens, Row
from runnel.decoders import Decoder
from runnel.drafters import Drafter
from runnel.model import Model
from runnel.prefill import CHUNK, prefill
from runnel.state import State

MAX_SEED = 2**63
PLAIN = {"temperature": 1.0, "top_k": None, "top_p": None, "min_p": None}
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
    """What was written after each prompt, in the order of the prompts.

    tokens: the new tokens, the one that ended a row (eos) included. logprobs: for each, its log-probability in nats
    under the model's own law (before temperature and truncation). state: of each row after all its tokens but the
    newest, so that `generate(model, [[newest], ...], state=state)` goes on without reading anything again.
    """

    tokens: list[list[int]]
    logprobs: list[list[float]]
    stats: Stats
    state: State


@torch.no_grad()
def generate(
    model: Model,
    prompts: Sequence[Sequence[int]],
    max_new_tokens: int = 64,
    decoder: str | Decoder | Any = "sample",
    drafter: str | Drafter | Any | None = None,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
    min_p: float | None = None,
    seed: int | Sequence[int] = 0,
    eos: int | Iterable[int] | None = None,
    state: State | None = None,
    on_tokens: OnTokens | None = None,
    prefill_chunk: int = CHUNK,
) -> Generation:
    """Continue each prompt (a list of at least one token id; their lengths may differ) by up to max_new_tokens tokens.

    decoder, drafter: the name of a page of `decoders/` or `drafters/`, or its Config, e.g.
        `suffix.Config(max_draft=8)`, or an object of one's own.
    temperature, top_k, top_p, min_p: options of a decoder given by name.
    seed: row i draws with seed + i, or with its own when a list is given.
    eos: the token or tokens that end a row.
    state: what the rows had read before the prompts; by default nothing. Positions, which key the randomness, go on
        from it: a text written in two calls is the text written in one.
    on_tokens(i, tokens): called after each round for each row i that is written; all but the last token are accepted
        drafts.

    ValueError, in one line, for whatever cannot be meant.
    """
    started = time.perf_counter()
    vocab_size = _vocabulary(model)
    texts = _texts(prompts, vocab_size)
    limit = _at_least("max_new_tokens", max_new_tokens, 0)
    chunk = _at_least("prefill_chunk", prefill_chunk, 1)
    stops = _stops(eos, vocab_size)
    options = {"temperature": temperature, "top_k": top_k, "top_p": top_p, "min_p": min_p}
    loop = Loop(model, _decoder(decoder, options), _drafter(drafter, vocab_size), on_tokens)

    state = _begin(model, state, len(texts))
    rows = [
        Row(index, row_seed, text[-1], before + len(text), limit, stops)
        for index, (text, row_seed, before) in enumerate(
            zip(texts, _seeds(seed, len(texts)), state.lengths.tolist(), strict=True)
        )
    ]
    state = prefill(model, [text[:-1] for text in texts], state, chunk)
    if loop.drafter is not None:
        for row, text in zip(rows, texts, strict=True):
            row.memory = loop.drafter.begin(text, loop.draw_for(row))
    state = loop.until_done(rows, state)
    stats = Stats(
        target_calls=loop.target_calls,
        drafted=loop.drafted,
        accepted=loop.accepted,
        seconds=time.perf_counter() - started,
    )
    return Generation([row.tokens for row in rows], [row.logprobs for row in rows], stats, state)


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


def _seeds(seed: int | Sequence[int], count: int) -> list[int]:
    seeds = [seed + row for row in range(count)] if isinstance(seed, int) else [operator.index(s) for s in seed]
    if len(seeds) != count:
        raise ValueError(f"seed must be one number, or one for each of the {count} prompts; got {len(seeds)}")
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
    if isinstance(decoder, Decoder):
        return decoder
    return catalog.class_in(_page_of(decoder, "decoders"), Decoder)(decoder)


def _drafter(drafter: str | Drafter | Any | None, vocab_size: int) -> Drafter | None:
    """A drafter by name, by Config, or as it is."""
    if drafter is None:
        return None
    found = drafter if isinstance(drafter, Drafter) else _drafter_of(drafter)
    if found.vocab_size not in (None, vocab_size):
        raise ValueError(f"a drafter must know the target's {vocab_size} tokens; this one knows {found.vocab_size}")
    return found


def _drafter_of(drafter: str | Any) -> Drafter:
    config = _default_config(drafter) if isinstance(drafter, str) else drafter
    made: Drafter = catalog.class_in(_page_of(config, "drafters"), Drafter)(config)
    return made


def _default_config(name: str) -> Any:
    page = catalog.page("drafters", name)
    for option in dataclasses.fields(page.Config):
        if option.default is dataclasses.MISSING and option.default_factory is dataclasses.MISSING:
            raise ValueError(f"drafter {name!r} needs a {option.name}: give {name}.Config({option.name}=...)")
    return page.Config()


def _page_of(config: Any, folder: str) -> ModuleType:
    """The page that a Config belongs to."""
    name = catalog.page_name(config)
    if name in catalog.names(folder) and isinstance(config, (page := catalog.page(folder, name)).Config):
        return page
    kind = catalog.KINDS[folder]
    raise ValueError(f"a {kind} must be given by name, by the Config of its page or as an object; got {config!r}")
