"""Search: decoding that keeps several texts of a row at once, all rows in one batch.

A search is a generator over one row. It yields which of its branches go on with which tokens (`Grow`), is sent what the
model says after each (`Grown`), and returns what it found. The driver forks the states and calls the model once for the
branches of all rows: a search never sees a state, and a state that a hypothesis holds stays valid whatever grows next.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import torch
from torch import Tensor

from runnel import catalog
from runnel.model import TextModel
from runnel.prefill import CHUNK, prefill_scored
from runnel.processors import Exhausted, Processor, Text, Trail, resolve
from runnel.state import Place, State, gathered
from runnel.stopping import StopText


@dataclass(frozen=True)
class Task:
    """A row to search for. prompt: what stands before it; position: where its first token will stand; limit: most
    tokens; stops: the tokens that end it; stop_text: what looks for stop strings; n: how many texts are wanted.

    hidden: for searches that ask for it (`Search.reads_hidden`), the model's hidden vectors (T, D) after the last T
    tokens of the prompt but its newest. trail: what constraints made of its texts.
    """

    prompt: Sequence[int]
    seed: int
    position: int
    limit: int
    stops: frozenset[int]
    n: int = 1
    stop_text: StopText | None = None
    hidden: Tensor | None = None
    trail: Trail = field(default_factory=Trail)

    @property
    def newest(self) -> int:
        return self.prompt[-1]

    def ended(self, tokens: Sequence[int]) -> str | None:
        """Why a text is no longer: "eos", "stop" or "length"; None when it may go on."""
        if tokens and tokens[-1] in self.stops:
            return "eos"
        if self.stop_text is not None and self.stop_text.after(tokens).found:
            return "stop"
        return "length" if len(tokens) >= self.limit else None

    def text(self, tokens: Sequence[int] = ()) -> Text:
        """What processors see after these tokens."""
        return Text(self.prompt, tokens, self.stops, trail=self.trail)


class Grow(NamedTuple):
    """The next branches: parents[i] is what tokens[i] follows, a branch of the last `Grow` or, to go back, the place
    that an earlier one was told. The first one has the parent 0, which has read the prompt but its newest token.

    tokens: one for each branch, or weights (n, V) of mixtures of tokens (see `Model.forward`).
    """

    parents: Sequence[int | Place]
    tokens: Sequence[int] | Tensor


class Grown(NamedTuple):
    """What the model said after the tokens of a `Grow`: logits (n, V) float64 on the CPU, hidden (n, D), and the place
    of each branch's state.
    """

    logits: Tensor
    hidden: Tensor
    places: list[Place]


@dataclass(frozen=True)
class Hypothesis:
    """A text. logprobs: of its tokens, under the model's own law. score: what the search ranks by, larger is better.

    place: the state after all tokens but the newest. ended: see `Task.ended`.
    """

    tokens: list[int]
    logprobs: list[float]
    score: float
    place: Place
    ended: str | None


Branches = Generator[Grow, Grown, list[Hypothesis]]


class Search(ABC):
    """A decoder that keeps several texts of a row: a page of `decoders/` with a `Config`, a `Search`, `LOSSLESS`
    (False: there is no law to keep, so no drafter) and `PAPERS`.

    reads_hidden: it is to be given the model's hidden vectors of the prompt (`Task.hidden`). rereads: the model did not
    read its texts as they stand, so that they are read once more in the end, for their log-probabilities and states.
    """

    reads_hidden = False
    rereads = False

    def __init__(self, config: Any) -> None:
        self.config = config

    @abstractmethod
    def search(self, task: Task) -> Branches:
        """The texts found for a row, best first: at least one, at most task.n."""

    def check(self, vocab_size: int, stops: frozenset[int], limit: int, n: int) -> None:
        """ValueError for what cannot be meant with so many tokens, these ends, texts of at most `limit` tokens, and n
        texts wanted.
        """
        return


class ProcessedSearch(Search):
    """A search whose Config has `processors`. width: how many texts it can find."""

    width = 1

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self.processors = without_memory(resolve(config.processors))

    def check(self, vocab_size: int, stops: frozenset[int], limit: int, n: int) -> None:
        if limit and n > self.width:
            raise ValueError(f"n must be at most the width {self.width} of {catalog.page_name(self)}; got {n}")
        for processor in self.processors:
            processor.check(vocab_size, stops, limit)

    def laws(self, logits: Tensor, texts: Sequence[Text]) -> Tensor:
        """Log-probabilities (n, V) of what may follow texts; -inf for what cannot be written."""
        return processed(logits, texts, self.processors)


class WideSearch(ProcessedSearch):
    """A search whose Config has a `width` too: how many texts it keeps."""

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self.width = config.width

    def check(self, vocab_size: int, stops: frozenset[int], limit: int, n: int) -> None:
        super().check(vocab_size, stops, limit, n)
        if limit and self.width > vocab_size**limit:
            texts = f"{vocab_size**limit} texts of {limit} of the {vocab_size} tokens"
            raise ValueError(
                f"width of {catalog.page_name(self)} must be at most the {texts} that there are; got {self.width}"
            )


def search_all(
    model: TextModel, state: State, tasks: Sequence[Task], search: Search
) -> tuple[list[list[Hypothesis]], int]:
    """Run a search for every row of a state that has read each prompt but its newest token.

    Returns what was found for each, and how many calls of the model it took.
    """
    found: dict[int, list[Hypothesis]] = {}
    running = {}
    for row, task in enumerate(tasks):
        if task.limit == 0:
            found[row] = [Beginning().hypothesis(0.0, (state, row), "length")]
        else:
            running[row] = search.search(task)
    places: dict[int, list[Place]] = {row: [(state, row)] for row in running}
    answers: dict[int, Grown | None] = dict.fromkeys(running)
    calls = 0
    while running:
        asked: dict[int, Grow] = {}
        for row, branches in list(running.items()):
            try:
                asked[row] = branches.send(answers[row])  # type: ignore[arg-type]  # None starts a generator
            except StopIteration as end:
                found[row] = end.value
                del running[row]
        if asked:
            answers = dict[int, Grown | None](_grown(model, places, asked))
            places = {row: answer.places for row, answer in answers.items() if answer is not None}
            calls += 1
    each = [found[row] for row in range(len(tasks))]
    return _reread(model, state, tasks, each, calls) if search.rereads else (each, calls)


def _grown(model: TextModel, places: dict[int, list[Place]], asked: dict[int, Grow]) -> dict[int, Grown]:
    """One call of the model for the branches of all rows."""
    parents = [(parent, row) for row, grow in asked.items() for parent in grow.parents]
    state = gathered([places[row][parent] if isinstance(parent, int) else parent for parent, row in parents])
    read = model.read(_inputs(model, [grow.tokens for grow in asked.values()])[:, None], state)
    logits, hidden, grown, first = read.logits[:, -1].double().cpu(), read.hidden[:, -1], {}, 0
    for row, grow in asked.items():
        rows = range(first, first + len(grow.tokens))
        grown[row] = Grown(logits[rows], hidden[rows], [(read.state, i) for i in rows])
        first += len(grow.tokens)
    return grown


def _inputs(model: TextModel, asked: Sequence[Sequence[int] | Tensor]) -> Tensor:
    """The tokens (N,) of all rows; mixtures (N, V) when a row asks for one."""
    if not any(isinstance(tokens, Tensor) for tokens in asked):
        return torch.tensor([token for tokens in asked for token in tokens], device=model.device)
    certain = torch.eye(model.config.outcomes, dtype=torch.float64)
    return torch.cat([t if isinstance(t, Tensor) else certain[list(t)] for t in asked]).to(model.device)


def _reread(
    model: TextModel, state: State, tasks: Sequence[Task], found: Sequence[Sequence[Hypothesis]], calls: int
) -> tuple[list[list[Hypothesis]], int]:
    """What was found with the log-probabilities and the states of its texts, and the calls with those it took."""
    each = [(row, text) for row, own in enumerate(found) for text in own]
    texts = [[tasks[row].newest, *text.tokens] for row, text in each]
    logprobs, _, after = prefill_scored(model, texts, state.fork([row for row, _ in each]))
    read: list[list[Hypothesis]] = [[] for _ in found]
    for index, (row, text) in enumerate(each):
        read[row].append(replace(text, logprobs=logprobs[index], place=(after, index)))
    return read, calls + math.ceil(max(len(text) - 1 for text in texts) / CHUNK)


@dataclass(frozen=True)
class Beginning:
    """A text that may go on. total: the log-probability of its tokens under the law that is searched."""

    tokens: tuple[int, ...] = ()
    logprobs: tuple[float, ...] = ()
    total: float = 0.0

    def followed(self, token: int, logprob: float, total: float) -> Beginning:
        return Beginning((*self.tokens, token), (*self.logprobs, logprob), total)

    def hypothesis(self, score: float, place: Place, ended: str | None) -> Hypothesis:
        return Hypothesis(list(self.tokens), list(self.logprobs), score, place, ended)


class Beams:
    """A beam: the `width` best beginnings, and the texts that are finished. totals rank beginnings; texts are ranked by

        score(y) = total(y) / ((5 + |y|) / 6)^length_penalty

    ("Google's Neural Machine Translation System", 2016, 1609.08144, section 7).
    """

    def __init__(self, task: Task, width: int, length_penalty: float = 0.0) -> None:
        self.task, self.width, self.length_penalty = task, width, length_penalty
        self.open, self.finished = [Beginning()], list[Hypothesis]()

    @property
    def texts(self) -> list[Text]:
        """What processors see of the open beginnings."""
        return [self.task.text(beginning.tokens) for beginning in self.open]

    def step(self, laws: Tensor, logits: Tensor, places: Sequence[Place]) -> list[int]:
        """Keep the best continuations by laws (n, V), what each token adds to a total: at most 0. logits: the model's.

        Returns the earlier beginning that each one now open follows, by index; none when the search has ended.
        """
        totals = torch.tensor([beginning.total for beginning in self.open], dtype=torch.float64)[:, None] + laws
        plain, after, parents, ends = logits.log_softmax(-1), list[Beginning](), list[int](), 0
        for parent, token in best_first(totals):
            text = self.open[parent].followed(token, float(plain[parent, token]), float(totals[parent, token]))
            ended = self.task.ended(text.tokens)
            if ended is None:
                after.append(text)
                parents.append(parent)
            elif ends < self.width:  # of one length, what comes later cannot be among the best
                score = text.total / self._length_norm(len(text.tokens))
                self.finished.append(text.hypothesis(score, places[parent], ended))
                ends += 1
            if self.width == (ends if len(text.tokens) == self.task.limit else len(after)):
                break
        self.open = after
        if self._settled():
            self.open, parents = [], []
        return parents

    def best(self, count: int) -> list[Hypothesis]:
        """The best finished texts, best first."""
        return sorted(self.finished, key=lambda found: -found.score)[:count]

    def _length_norm(self, length: int) -> float:
        return ((5 + length) / 6) ** self.length_penalty

    def _settled(self) -> bool:
        """Whether no beginning can come before the worst of the texts that are kept. A total only falls."""
        if not self.open or len(self.finished) < self.width:
            return not self.open
        likeliest = max(beginning.total for beginning in self.open)
        return likeliest / self._length_norm(self.task.limit) <= self.best(self.width)[-1].score


def best_first(scores: Tensor) -> Iterator[tuple[int, int]]:
    """The (row, column) of scores (n, V), best first, those of -inf left out; ties go to the earlier."""
    flat, wanted, given = scores.flatten(), 64, 0
    while given < flat.numel():
        order = flat.sort(descending=True, stable=True).indices if wanted >= flat.numel() else _top(flat, wanted)
        for at in order[given:].tolist():
            if flat[at] == -torch.inf:
                return
            yield divmod(at, scores.shape[1])
        given, wanted = len(order), wanted * 8


def _top(flat: Tensor, count: int) -> Tensor:
    """The indices of the `count` largest and of what ties with the last of them, in stable order."""
    least = flat.topk(count).values[-1]
    kept = (flat >= least).nonzero()[:, 0]
    return kept[flat[kept].sort(descending=True, stable=True).indices]


def processed(logits: Tensor, texts: Sequence[Text], processors: Sequence[Processor]) -> Tensor:
    """Log-probabilities (n, V) after processors (see `runnel.processors`); -inf for what cannot be written."""
    for processor in processors:
        logits = processor.process(logits, texts)
    if bool((logits == -torch.inf).all(-1).any()):
        raise Exhausted("no token is left to write: all are banned by " + ", ".join(p.name for p in processors))
    return logits.log_softmax(-1)


def without_memory(processors: Sequence[Processor]) -> tuple[Processor, ...]:
    """The processors, when none of them remembers what was drawn before."""
    for processor in processors:
        if processor.remembers:
            raise ValueError(f"{processor.name} steers what is drawn one token at a time; a search draws nothing")
    return tuple(processors)
