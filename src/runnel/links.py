"""Links: what a layer hands to later layers beside the residual stream.

A link is a name and a value that lives as long as one call of the model: the tokens' values of a first layer, the keys
and values of one layer with the memory that they follow, the embedding. Layers give and take in their order; what has
to be remembered from call to call is the giver's own state, so that forks, trees and commits need nothing of their own.

| link | given by | value |
|---|---|---|
| `embedding` | the model | (B, T, D): what the first layer reads |
| `tokens` | a model of tokens | `Tokens`: the tokens, and the vectors of all of them |
| any other | a mixer that says so in `gives` | (B, T, width), or any memory where the width is None |

Weights may be shared too: a page asks its `Wiring` for a module by name, and gets the one that an earlier layer made.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import reduce
from operator import add
from typing import Any, ClassVar, NamedTuple

from jaxtyping import Float, Int
from torch import Tensor, nn

from runnel.lineage import Lineage
from runnel.mixer import Mixer
from runnel.state import Memory

EMBEDDING = "embedding"
TOKENS = "tokens"
Links = Mapping[str, Memory]
"""The values of links by name. Vectors are (B, T, width), a column for each token of the call."""


class Tokens(NamedTuple):
    """ids: of the call; of a mixture of tokens the heaviest. table: the embedding, before any norm or position."""

    ids: Int[Tensor, "B T 1"]
    table: Float[Tensor, "V D"]

    @classmethod
    def of(cls, elements: Tensor, table: Tensor) -> Tokens:
        """elements: what a model of tokens was called with, ids (*B) or mixtures (*B, V)."""
        ids = elements.argmax(-1) if elements.is_floating_point() else elements
        return cls(ids[..., None], table)


class Wiring:
    """What a page may know of the layers before its own while a model is built.

    given: the widths of the links so far. layer: the number of the layer that is being built.
    """

    def __init__(self, d_model: int, reads_tokens: bool = False) -> None:
        self.given: dict[str, int | None] = {EMBEDDING: d_model, **({TOKENS: None} if reads_tokens else {})}
        self.layer = 0
        self._shared: dict[str, tuple[Any, Any]] = {}

    def shared(self, name: str, config: Any, make: Callable[[], Any]) -> Any:
        """The module of this name, made by the first layer that asks. ValueError where the layers' configs differ."""
        if name not in self._shared:
            self._shared[name] = (config, make())
        first, module = self._shared[name]
        if first != config:
            raise ValueError(
                f"layers cannot be linked: layer {self.layer} shares {name} with a layer before it, and must have its "
                f"{first}; got {config}"
            )
        return module

    def add(self, mixer: Mixer) -> None:
        """What a layer gives. ValueError where it takes what no layer before it gave."""
        for name in taken(mixer):
            if name not in self.given:
                raise ValueError(
                    f"layers cannot be linked: layer {self.layer} takes the link {name!r}; given are "
                    f"{', '.join(self.given)}"
                )
        self.given |= given(mixer)

    def agree(self, name: str, sizes: Mapping[str, int]) -> None:
        """ValueError where the layers that use a link have other sizes than the first of them."""
        self.shared(name, dict(sizes), lambda: None)


class Linked(Mixer):
    """A mixer that takes or gives links: `__init__(d_model, config, wiring)`, with the Wiring of the layers before it.

    takes: links without which this one does not work. gives: the width of each that it gives; None for what is not a
    vector of each token. places: patterns in which the conformance suite holds it, {} being the page with its options.
    """

    places: ClassVar[tuple[str, ...]] = ("{}",)
    takes: tuple[str, ...] = ()
    gives: Mapping[str, int | None] = {}

    @abstractmethod
    def forward(  # type: ignore[override]
        self, x: Float[Tensor, "B T D"], state: Memory, lineage: Lineage, links: Links
    ) -> tuple[Float[Tensor, "B T D"], Memory, Links]:
        """The outputs, the state after the last token (pending after a tree) and what `gives` names."""

    @abstractmethod
    def reference(  # type: ignore[override]
        self, x: Float[Tensor, "B T D"], links: Links
    ) -> Float[Tensor, "B T D"]:
        """The literal loop of the paper over fresh rows. Slow and obvious."""


def share_weights(layers: Iterable[nn.Module]) -> bool:
    """Whether a parameter is in several layers."""
    owned = [id(parameter) for layer in layers for parameter in layer.parameters()]
    return len(owned) > len(set(owned))


def taken(mixer: Mixer) -> tuple[str, ...]:
    """The links that a mixer takes."""
    return mixer.takes if isinstance(mixer, Linked) else ()


def given(mixer: Mixer) -> Mapping[str, int | None]:
    """The links that a mixer gives, with their widths."""
    return mixer.gives if isinstance(mixer, Linked) else {}


def call(
    mixer: Mixer, x: Float[Tensor, "B T D"], state: Memory, lineage: Lineage, links: Links
) -> tuple[Float[Tensor, "B T D"], Memory, Links]:
    """A mixer, linked or not."""
    if isinstance(mixer, Linked):
        for name in mixer.takes:
            if name not in links:
                raise ValueError(
                    f"{type(mixer).__name__} takes the link {name!r}; given are {', '.join(links) or 'none'}"
                )
        return mixer(x, state, lineage, {name: links[name] for name in mixer.takes})
    return *mixer(x, state, lineage), {}


def literal(mixer: Mixer, x: Float[Tensor, "B T D"], links: Links) -> Float[Tensor, "B T D"]:
    """The literal loop of a mixer, linked or not."""
    return mixer.reference(x, links) if isinstance(mixer, Linked) else mixer.reference(x)


class LinkedBeside(Linked):
    """`runnel.mixer.Beside` where some of the mixers are linked. All take what layers before theirs gave."""

    def __init__(self, mixers: Sequence[Mixer]) -> None:
        super().__init__()
        self.parts = nn.ModuleList(mixers)
        self.takes, self.gives = _together(mixers)

    @property
    def pages(self) -> tuple[Mixer, ...]:
        return tuple(self.parts)  # type: ignore[arg-type]

    def init_state(self, batch_size: int) -> Memory:
        return tuple(mixer.init_state(batch_size) for mixer in self.pages)

    def forward(  # type: ignore[override]
        self, x: Float[Tensor, "B T D"], state: Memory, lineage: Lineage, links: Links
    ) -> tuple[Float[Tensor, "B T D"], Memory, Links]:
        made = [call(mixer, x, memory, lineage, links) for mixer, memory in zip(self.pages, state, strict=True)]
        outputs, memories, gifts = zip(*made, strict=True)
        return reduce(add, outputs), memories, {name: value for own in gifts for name, value in own.items()}

    def reference(self, x: Float[Tensor, "B T D"], links: Links) -> Float[Tensor, "B T D"]:  # type: ignore[override]
        return reduce(add, (literal(mixer, x, links) for mixer in self.pages))


class Ahead(Linked):
    """One mixer ahead of another (`a > b`): the second reads the norm of the layer's input plus what the first made.

        y = second(norm(x + first(x))),   x as `first` wants it: the norm of the stream, or the stream itself

    The layer adds y to its input alone: what the first makes goes through the second or nowhere.
    """

    normed = False

    def __init__(self, first: Mixer, second: Mixer, norm_first: nn.Module, norm: nn.Module) -> None:
        super().__init__()
        self.norm_first, self.first, self.norm, self.second = norm_first, first, norm, second
        self.takes, self.gives = _together(self.pages)

    @property
    def pages(self) -> tuple[Mixer, ...]:
        return (self.first, self.second)

    def init_state(self, batch_size: int) -> Memory:
        return tuple(mixer.init_state(batch_size) for mixer in self.pages)

    def forward(  # type: ignore[override]
        self, x: Float[Tensor, "B T D"], state: Memory, lineage: Lineage, links: Links
    ) -> tuple[Float[Tensor, "B T D"], Memory, Links]:
        added, first, gifts = call(self.first, self.norm_first(x), state[0], lineage, links)
        y, second, more = call(self.second, self.norm(x + added), state[1], lineage, links)
        return y, (first, second), {**gifts, **more}

    def reference(self, x: Float[Tensor, "B T D"], links: Links) -> Float[Tensor, "B T D"]:  # type: ignore[override]
        return literal(self.second, self.norm(x + literal(self.first, self.norm_first(x), links)), links)


def _together(mixers: Sequence[Mixer]) -> tuple[tuple[str, ...], dict[str, int | None]]:
    takes = dict.fromkeys(name for mixer in mixers for name in taken(mixer))
    return tuple(takes), {name: width for mixer in mixers for name, width in given(mixer).items()}
