"""Requests: what the caller of `generate` and `score` may mean, checked at the door. ValueError, in one line, else."""

from __future__ import annotations

import dataclasses
import operator
from collections.abc import Iterable, Sequence
from typing import Any

from runnel import catalog
from runnel.codecs import Codec
from runnel.decoders import Decoder
from runnel.drafters import Drafter
from runnel.model import Model, TextModel
from runnel.search import Search
from runnel.state import State
from runnel.stopping import StopText

MAX_SEED = 2**63
PLAIN = {"temperature": 1.0, "top_k": None, "top_p": None, "min_p": None, "processors": ()}
"""Options of the decoder that `generate` takes beside its name, with the values that mean "not given"."""


def vocabulary_of(model: Model) -> int:
    if model.config.vocab_size is None:
        raise ValueError(
            f"generate needs a model of tokens; this one is of values (value_dim {model.config.value_dim})"
        )
    return model.config.vocab_size


def texts_of(prompts: Sequence[Sequence[int]], vocab_size: int) -> list[list[int]]:
    texts = [text_of(prompt, row, vocab_size) for row, prompt in enumerate(prompts)]
    if not texts:
        raise ValueError("prompts must be a list of at least one list of token ids; got an empty list")
    return texts


def text_of(prompt: Sequence[int], row: int, vocab_size: int) -> list[int]:
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


def at_least(name: str, value: int, least: int) -> int:
    if value < least:
        raise ValueError(f"{name} must be at least {least}; got {value}")
    return value


def each(name: str, value: Any, count: int) -> list[Any]:
    """One value for each prompt: the same, or the list's own."""
    if not isinstance(value, list | tuple):
        return [value] * count
    if len(value) != count:
        raise ValueError(f"{name} must be one value, or one for each of the {count} prompts; got {len(value)}")
    return list(value)


def seeds_of(seed: int | Sequence[int], prompts: int, samples: int) -> list[int]:
    count = prompts * samples
    seeds = [seed + row for row in range(count)] if isinstance(seed, int) else [operator.index(s) for s in seed]
    if len(seeds) != count:
        rows = f"{prompts} prompts" if samples == 1 else f"{samples} samples of {prompts} prompts"
        raise ValueError(f"seed must be one number, or one for each of the {rows}; got {len(seeds)}")
    for row_seed in seeds:
        if not 0 <= row_seed < MAX_SEED:
            raise ValueError(f"seeds must lie in [0, 2^63); got {row_seed}")
    return seeds


def stops_of(eos: int | Iterable[int] | None, vocab_size: int) -> frozenset[int]:
    stops = frozenset() if eos is None else frozenset([eos] if isinstance(eos, int) else eos)
    for token in stops:
        if not 0 <= token < vocab_size:
            raise ValueError(f"eos must be a token in [0, {vocab_size}); got {token}")
    return stops


def state_of(model: TextModel, state: State | None, count: int) -> State:
    if state is None:
        return model.init_state(batch_size=count)
    if state.batch_size != count:
        raise ValueError(f"state must have one row for each of the {count} prompts; got {state.batch_size}")
    return state


def strings_of(stop: str | bytes | Sequence[str | bytes], codec: Codec | None, vocab_size: int) -> list[str | bytes]:
    strings = [stop] if isinstance(stop, str | bytes) else list(stop)
    if codec is None:
        if strings:
            raise ValueError("stop strings are looked for in the bytes of the tokens: give the codec too")
        return []
    if codec.vocab_size < vocab_size:
        raise ValueError(f"the codec must know the model's {vocab_size} tokens; this one knows {codec.vocab_size}")
    StopText(codec, strings)  # refuses empty ones
    return strings


def earlier_of(read: Sequence[Sequence[int]] | None, state: State, vocab_size: int) -> list[list[int]]:
    """What each row of the state has read, as far as the caller says."""
    if read is None:
        return [[] for _ in range(state.batch_size)]
    lengths = state.lengths.tolist()
    if [len(tokens) for tokens in read] != lengths:
        raise ValueError(f"read must be the {lengths} tokens that the state has read; got {[len(r) for r in read]}")
    return [text_of(tokens, row, vocab_size) if len(tokens) else [] for row, tokens in enumerate(read)]


def decoders_of(decoder: str | Decoder | Search | Any, options: dict[str, Any], count: int) -> list[Any]:
    """The decoder of each prompt; prompts with the same options share one."""
    values = {name: each(name, value, count) for name, value in options.items() if name != "processors"}
    values["processors"] = processors_of(options["processors"], count)
    made: list[tuple[dict[str, Any], Any]] = []
    found = []
    for row in range(count):
        wanted = {name: value[row] for name, value in values.items()}
        known = next((known for options, known in made if options == wanted), None)
        if known is None:
            known = decoder_of(decoder, wanted)
            made.append((wanted, known))
        found.append(known)
    return found


def processors_of(processors: Any, count: int) -> list[tuple[Any, ...]]:
    """The processors of each prompt: the same, or of a list of lists its own."""
    if not isinstance(processors, list | tuple):
        return [(processors,)] * count
    if processors and all(isinstance(own, list | tuple) for own in processors):
        return [tuple(own) for own in each("processors", processors, count)]
    return [tuple(processors)] * count


def decoder_of(decoder: str | Decoder | Search | Any, options: dict[str, Any]) -> Any:
    """A decoder by name with the options that were given, by Config, or as it is."""
    given = {name: value for name, value in options.items() if value != PLAIN[name]}
    if isinstance(decoder, str):
        page = catalog.page("decoders", decoder)
        known = {f.name for f in dataclasses.fields(page.Config)}
        for name in given:
            if name not in known:
                raise ValueError(f"decoder {decoder!r} has no option {name!r}")
        return catalog.class_in(page, (Decoder, Search))(page.Config(**given))
    if given:
        raise ValueError(f"{', '.join(given)} belong beside the name of a decoder; got a decoder that is configured")
    return catalog.make("decoders", (Decoder, Search), decoder)


def search_of(decoders: Sequence[Any], drafter: Any, top_logprobs: int) -> Search | None:
    """The search that the decoders of the prompts are, if they are one."""
    searches = [decoder for decoder in decoders if isinstance(decoder, Search)]
    if not searches:
        return None
    search, name = searches[0], catalog.page_name(searches[0])
    if any(decoder is not search for decoder in decoders):
        raise ValueError(f"{name} searches for all prompts alike: give one decoder and options that are not lists")
    if drafter is not None:
        raise ValueError(f"{name} keeps several texts and has no law that a drafter could guess: give no drafter")
    if top_logprobs:
        raise ValueError(f"{name} gives no top_logprobs: score its texts with runnel.score")
    return search


def drafter_of(drafter: str | Drafter | Any | None, vocab_size: int) -> Drafter | None:
    """A drafter by name, by Config, or as it is."""
    if drafter is None:
        return None
    found: Drafter = catalog.make("drafters", Drafter, drafter)
    if found.vocab_size not in (None, vocab_size):
        raise ValueError(f"a drafter must know the target's {vocab_size} tokens; this one knows {found.vocab_size}")
    return found
