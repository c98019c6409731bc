"""Model: embed -> layers of (mixer, channel block) -> norm -> head. State passed in and returned, never hidden.

The same function serves training, prefill, one-token decoding and tree verification; only the Lineage differs.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import torch
from jaxtyping import Float
from torch import Tensor, nn

from runnel import catalog, patterns
from runnel.frame import Embedding, Frame, Norm, Positions
from runnel.head import Head
from runnel.lineage import Lineage
from runnel.links import EMBEDDING, TOKENS, Ahead, Linked, LinkedBeside, Links, Tokens, Wiring, call, taken
from runnel.mixer import Beside, Mixer, linear, parameter_groups
from runnel.state import Memory, PendingState, State
from runnel.storage import read_json, read_tensors, write_json, write_tensors
from runnel.tree import DraftTree, Verification
from runnel.types import Elements
from runnel.unfilled import Unfilled


@dataclass(frozen=True)
class ModelConfig:
    """Everything that decides a model but its weights.

    Exactly one of vocab_size (tokens) and value_dim (values) is set.
    """

    pattern: str
    d_model: int
    vocab_size: int | None = None
    value_dim: int | None = None
    n_layers: int | None = None
    channel: str | None = "swiglu"
    head: str | None = None
    seed: int = 0
    frame: Frame = field(default_factory=Frame)

    def __post_init__(self) -> None:
        if isinstance(self.frame, dict):  # as `to_dict` wrote it
            object.__setattr__(self, "frame", Frame(**self.frame))

    def to_dict(self) -> dict[str, Any]:
        """The fields as plain values; the frame only where it is not the default one, so that fingerprints stay."""
        fields = asdict(self)
        if self.frame == Frame():
            del fields["frame"]
        return fields

    @property
    def outcomes(self) -> int:
        return self.vocab_size or self.value_dim or 0


class Layer(nn.Module):
    """Residual: x + mixer(norm(x)), then x + block(norm(x)); the frame may put the norms elsewhere."""

    def __init__(self, spec: patterns.Layer, d_model: int, frame: Frame, mixer: Mixer) -> None:
        super().__init__()
        self.frame = frame
        self.mixer_norm = _norm_of(mixer, d_model, frame)
        self.mixer = mixer
        self.block: nn.Module | None = None
        if spec.block is not None:
            self.block_norm = frame.make_norm(d_model)
            self.block = _page_class("blocks", spec.block, nn.Module)(d_model, _config("blocks", spec.block))
        if frame.place == "around":
            self.mixer_norm_after = frame.make_norm(d_model)
            if spec.block is not None:
                self.block_norm_after = frame.make_norm(d_model)

    @property
    def parts(self) -> list[nn.Module]:
        """Its mixers, one after the other, and its block if it has one."""
        return [*self.mixer.pages] if self.block is None else [*self.mixer.pages, self.block]

    def forward(
        self, x: Float[Tensor, "B T D"], memory: Memory, lineage: Lineage
    ) -> tuple[Float[Tensor, "B T D"], Memory]:
        read = self._before("mixer", x)
        y, memory = self.mixer(read, memory, lineage)
        return self._through_block(self._added("mixer", x, read, y)), memory

    def _through_block(self, x: Tensor) -> Tensor:
        if self.block is None:
            return x
        read = self._before("block", x)
        return self._added("block", x, read, self.block(read))

    def _before(self, part: str, x: Tensor) -> Tensor:
        return x if self.frame.place == "after" else getattr(self, f"{part}_norm")(x)

    def _added(self, part: str, x: Tensor, read: Tensor, y: Tensor) -> Tensor:
        """The residual stream after a part. x: before it; read: what it was given; y: what it made."""
        place, residual, carried = self.frame.place, self.frame.residual, self.frame.carried
        if place in ("around", "after"):
            y = getattr(self, f"{part}_norm" + ("_after" if place == "around" else ""))(y)
        x = read if place == "through" else x
        return (x if carried == 1 else x * carried) + (y if residual == 1 else y * residual)


class LinkedLayer(Layer):
    """A layer whose mixer takes links or gives some: it is told of them, and also returns what it gives."""

    def forward(  # type: ignore[override]
        self, x: Float[Tensor, "B T D"], memory: Memory, lineage: Lineage, links: Links
    ) -> tuple[Float[Tensor, "B T D"], Memory, Links]:
        read = self._before("mixer", x)
        y, memory, gifts = call(self.mixer, read, memory, lineage, links)
        return self._through_block(self._added("mixer", x, read, y)), memory, gifts


def layers_of(
    specs: Iterable[patterns.Layer], d_model: int, frame: Frame | None = None, reads_tokens: bool = False
) -> list[Layer]:
    """Layers one after the other. ValueError where they cannot be linked. reads_tokens: their model does."""
    frame, wiring, made = frame or Frame(), Wiring(d_model, reads_tokens), []
    for wiring.layer, spec in enumerate(specs):
        mixer = _mixer(spec, d_model, frame, wiring)
        made.append((LinkedLayer if isinstance(mixer, Linked) else Layer)(spec, d_model, frame, mixer))
        wiring.add(mixer)
    return made


def through(
    layers: Iterable[nn.Module], x: Float[Tensor, "B T D"], memories: Sequence[Memory], lineage: Lineage, links: Links
) -> tuple[Float[Tensor, "B T D"], tuple[Memory, ...], Links]:
    """Vectors through layers, the memories after them, and the links with what these layers gave."""
    after = []
    for layer, memory in zip(layers, memories, strict=True):
        if isinstance(layer, LinkedLayer):
            x, memory, gifts = layer(x, memory, lineage, links)
            links = {**links, **gifts}
        else:
            x, memory = layer(x, memory, lineage)
        after.append(memory)
    return x, tuple(after), links


def _mixer(spec: patterns.Layer, d_model: int, frame: Frame, wiring: Wiring) -> Mixer:
    """The mixers of a layer as one."""
    first = None if spec.ahead is None else _page_mixer(spec.ahead, d_model, wiring)
    mixers = [_page_mixer(part, d_model, wiring) for part in (spec.mixer, *spec.beside)]
    mixer = mixers[0]
    if spec.beside:
        mixer = LinkedBeside(mixers) if any(isinstance(part, Linked) for part in mixers) else Beside(mixers)
    if first is None:
        return mixer
    return Ahead(first, mixer, *[_norm_of(part, d_model, frame) for part in (first, mixer)])


def _page_mixer(part: patterns.Part, d_model: int, wiring: Wiring) -> Mixer:
    kind, config = _page_class("mixers", part, Mixer), _config("mixers", part)
    return kind(d_model, config, wiring) if issubclass(kind, Linked) else kind(d_model, config)


def _norm_of(mixer: Mixer, d_model: int, frame: Frame) -> nn.Module:
    """What stands before a mixer."""
    return frame.make_norm(d_model) if mixer.normed else nn.Identity()


class Reading(NamedTuple):
    """What a call of a model gives. logits: the head's parameters. hidden: the normalised vectors that the head saw."""

    logits: Float[Tensor, "B T P"]
    hidden: Float[Tensor, "B T D"]
    state: State


class TextReader(Protocol):
    """What reading a prompt uses of a model."""

    @property
    def config(self) -> ModelConfig: ...
    @property
    def device(self) -> torch.device: ...
    def features(
        self, inputs: Elements, state: State | None = None, lineage: Lineage | None = None
    ) -> tuple[Tensor, State]: ...


class TextModel(TextReader, Protocol):
    """What decoding uses of a model: `Model` has it, and so has what stands in for one (`runnel.guidance`)."""

    def __call__(
        self, inputs: Elements, state: State | None = None, lineage: Lineage | None = None
    ) -> tuple[Tensor, State]: ...
    def init_state(self, batch_size: int) -> State: ...
    def read(self, inputs: Elements, state: State | None = None, lineage: Lineage | None = None) -> Reading: ...
    def verify(self, state: State, tree: DraftTree) -> Verification: ...
    def fingerprint(self) -> str: ...
    def own_state(self, state: State) -> State: ...


@dataclass(frozen=True)
class Identity:
    """The fingerprint of a state's model, on demand; refused when the weights have changed since."""

    model: Model
    version: int

    def __call__(self) -> str:
        if _version(self.model) != self.version:
            raise ValueError("the model's weights have changed since this state was begun")
        return self.model.fingerprint()


def _page_class(folder: str, part: patterns.Part, base: type) -> Any:
    return catalog.class_in(catalog.page(folder, part.name), base)


def _config(folder: str, part: patterns.Part) -> Any:
    return part.config(catalog.page(folder, part.name))


def _head(text: str, config: ModelConfig) -> Head:
    part = patterns.parse_part(text, "heads")
    page = catalog.page("heads", part.name)
    return catalog.class_in(page, Head)(config.d_model, config.outcomes, part.config(page))


class Model(nn.Module):
    """An autoregressive sequence model. Make one with `runnel.build` or `runnel.load`."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        specs = patterns.parse(config.pattern, config.channel, config.n_layers)
        frame = config.frame
        if config.vocab_size is not None:
            self.embed: nn.Module = Embedding(config.vocab_size, config.d_model, frame.embedding)
        else:
            self.embed = linear(config.outcomes, config.d_model, bias=True)
        self.positions = None if frame.positions is None else Positions(frame.positions, config.d_model)
        self.embedding_norm = frame.make_norm(config.d_model) if frame.embedding_norm else None
        self.layers = nn.ModuleList(layers_of(specs, config.d_model, frame, config.vocab_size is not None))
        self.norm: Norm = frame.make_norm(config.d_model)
        default_head = "categorical" if config.vocab_size is not None else "gaussian"
        self.head: Head = _head(config.head or default_head, config)
        self._calm_residuals()
        if frame.tied:
            self.tie()

    # ---- the function -------------------------------------------------------------------------------------------

    def init_state(self, batch_size: int) -> State:
        """The zero state of `batch_size` rows."""
        if batch_size < 1:
            raise ValueError(f"batch_size must be at least 1; got {batch_size}")
        lengths = torch.zeros(batch_size, dtype=torch.long, device=self.device)
        return State(
            tuple(mixer.init_state(batch_size) for mixer in self.mixers), lengths, Identity(self, _version(self))
        )

    def forward(
        self, inputs: Elements, state: State | None = None, lineage: Lineage | None = None
    ) -> tuple[Float[Tensor, "B T P"], State]:
        """Head parameters (for tokens: logits) and the next state.

        The state that was passed in stays valid. lineage: padded or packed rows; an ordinary sequence when left out.
        A model of tokens also reads mixtures of tokens, (B, T, V) float weights that sum to one: it sees the weighted
        mean of their embeddings.
        """
        read = self.read(inputs, state, lineage)
        return read.logits, read.state

    def features(
        self, inputs: Elements, state: State | None = None, lineage: Lineage | None = None
    ) -> tuple[Float[Tensor, "B T D"], State]:
        """As `forward`, but the normalised hidden vectors that the head sees."""
        hidden, state, _ = self._advance(inputs, state, lineage)
        return hidden, state

    def read(self, inputs: Elements, state: State | None = None, lineage: Lineage | None = None) -> Reading:
        """As `forward`, with the hidden vectors that the head saw."""
        hidden, state, lineage = self._advance(inputs, state, lineage)
        return Reading(self._outcomes(hidden, lineage), hidden, state)

    def _advance(
        self, inputs: Elements, state: State | None, lineage: Lineage | None
    ) -> tuple[Float[Tensor, "B T D"], State, Lineage]:
        if lineage is not None and lineage.is_tree:
            raise ValueError("a draft tree has no next state: use model.verify(state, tree)")
        check_inputs(inputs, self.config)
        batch_size, length = inputs.shape[:2]
        state = self.init_state(batch_size) if state is None else state
        lineage = Lineage.sequence(batch_size, length, inputs.device) if lineage is None else lineage
        if state.batch_size != batch_size:
            raise ValueError(f"state must have the {batch_size} rows of the input; got {state.batch_size}")
        if (lineage.batch_size, lineage.length) != (batch_size, length):
            raise ValueError(
                f"lineage must be ({batch_size}, {length}), as the input; got ({lineage.batch_size}, {lineage.length})"
            )
        lineage = lineage.at(state.lengths)
        hidden, layers = self._run(inputs, state.layers, lineage)
        return hidden, State(layers, lineage.end, state.identify), lineage

    def _outcomes(self, hidden: Tensor, lineage: Lineage) -> Tensor:
        return self.head(hidden, lineage.positions) if self.head.positional else self.head(hidden)

    def verify(self, state: State, tree: DraftTree) -> Verification:
        """Run every node of a draft tree after its own path, in one call. The state is unchanged."""
        layout = tree.layout(state.batch_size)
        device = self.device
        if layout.width == 0:
            hidden, layers = self.norm.weight.new_zeros(0, self.config.d_model), ()
            logits = hidden.new_zeros(0, self.config.outcomes)
        else:
            tokens = layout.padded(tree.tokens, 0).to(device)
            check_inputs(tokens, self.config)
            lineage = layout.lineage().to(device).at(state.lengths)
            padded, layers = self._run(tokens, state.layers, lineage)
            logits = self._outcomes(padded, lineage)[tree.rows, layout.columns]
            hidden = padded[tree.rows, layout.columns]
        pending = PendingState(state, layers, layout.columns.to(device), tree.rows, tree.parents)
        return Verification(logits, hidden, pending)

    def own_state(self, state: State) -> State:
        """What of a state is that of the model whose hidden vectors are read: here all of it."""
        return state

    def _run(self, inputs: Tensor, memories: Memory, lineage: Lineage) -> tuple[Tensor, Memory]:
        x = self._embedded(inputs, lineage)
        x, after, _ = through(self.layers, x, memories, lineage, {EMBEDDING: x, **self._tokens(inputs)})
        return self.norm(x), after

    def _tokens(self, inputs: Tensor) -> Links:
        """The link of tokens, where a layer takes it."""
        if not isinstance(self.embed, Embedding) or not any(TOKENS in taken(mixer) for mixer in self.mixers):
            return {}
        return {TOKENS: Tokens.of(inputs, self.embed.scaled(self.embed.weight))}

    def _embedded(self, inputs: Tensor, lineage: Lineage) -> Tensor:
        if isinstance(self.embed, Embedding) and inputs.is_floating_point():
            x = self.embed.mixed(inputs)
        else:
            x = self.embed(inputs)
        if self.positions is not None:
            x = x + self.positions.of(lineage.positions, lineage.valid)
        return x if self.embedding_norm is None else self.embedding_norm(x)

    def tie(self) -> None:
        """Make the head's matrix the embedding, as a frame that is `tied` wants it."""
        logits = getattr(self.head, "logits", None)
        if not isinstance(self.embed, Embedding) or not isinstance(logits, nn.Linear):
            raise ValueError(f"only a head of logits over tokens can be tied; got {catalog.page_name(self.head)}")
        logits.weight = self.embed.weight

    # ---- identity and training ----------------------------------------------------------------------------------

    @property
    def mixers(self) -> list[Mixer]:
        return [layer.mixer for layer in self.layers]  # type: ignore[misc]

    @property
    def device(self) -> torch.device:
        return self.norm.weight.device

    def fingerprint(self) -> str:
        """A digest of the configuration, the semantics of every page used, and the weights."""
        digest = hashlib.sha256(json.dumps([self.config.to_dict(), self.semantics()], sort_keys=True).encode())
        for name, tensor in self.state_dict().items():
            digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
            digest.update(tensor.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes())
        return digest.hexdigest()[:32]

    def semantics(self) -> dict[str, int]:
        """Which version of each mixer's function the weights are meant for."""
        return {catalog.page_name(page): page.semantics for mixer in self.mixers for page in mixer.pages}

    def parameter_groups(self) -> list[dict[str, Any]]:
        """Named parameters by treatment; see `runnel.mixer.parameter_groups`."""
        return parameter_groups(self, self.layers)

    @torch.no_grad()
    def _calm_residuals(self) -> None:
        """Scale what is added to the residual stream by 1/sqrt(number of additions) ("GPT-2", 2019, section 2.3)."""
        parts: list[Any] = [p for layer in self.layers for p in layer.parts]  # type: ignore[union-attr]
        for part in parts:
            several = isinstance(part.out, nn.ModuleList)
            for out in part.out if several else [part.out]:
                out.weight.mul_(len(parts) ** -0.5)


def build(
    pattern: str,
    vocab_size: int | None = None,
    d_model: int = 64,
    n_layers: int | None = None,
    seed: int = 0,
    channel: str | None = "swiglu",
    value_dim: int | None = None,
    head: str | None = None,
    frame: Frame | dict[str, Any] | None = None,
) -> Model:
    """A freshly initialised model; the same arguments give the same weights.

    pattern: see `runnel.patterns`, e.g. "mamba2" or "(mamba2*3, attention)*2". n_layers repeats the pattern.
    Give vocab_size for a model of tokens, or value_dim for a model of real vectors.
    head: a page of `heads/` with its options, e.g. "self_terminating(eos=0)"; else "categorical", or "gaussian".
    frame: norms, their place, tied embeddings and the like; see `runnel.frame`.
    """
    if (vocab_size is None) == (value_dim is None):
        raise ValueError("give exactly one of vocab_size (tokens) and value_dim (values)")
    for name, size in (("vocab_size", vocab_size), ("value_dim", value_dim), ("d_model", d_model)):
        if size is not None and size < 1:
            raise ValueError(f"{name} must be at least 1; got {size}")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        frame = Frame(**frame) if isinstance(frame, dict) else frame or Frame()
        return Model(ModelConfig(pattern, d_model, vocab_size, value_dim, n_layers, channel, head, seed, frame))


def save(model: Model, folder: str | Path) -> None:
    """Write config.json and model.safetensors, each atomically.

    OSError when the disk is full; the old files then stay.
    """
    folder = Path(folder)
    config = {"format": "runnel.model", "version": 1, "config": model.config.to_dict(), "semantics": model.semantics()}
    write_tensors(folder / "model.safetensors", own_tensors(model), {"config": json.dumps(config, sort_keys=True)})
    write_json(folder / "config.json", config)


def load(folder: str | Path) -> Model:
    """Read a model that `save` wrote.

    FileNotFoundError when it is not there; ValueError when it is damaged or foreign.
    """
    folder = Path(folder)
    config = read_json(folder / "config.json")
    if not isinstance(config, dict) or config.get("format") != "runnel.model":
        raise ValueError(f"{folder / 'config.json'} does not describe a Runnel model")
    tensors, meta = read_tensors(folder / "model.safetensors")
    if meta.get("config") != json.dumps(config, sort_keys=True):
        raise ValueError(f"{folder / 'model.safetensors'} belongs to another config.json")
    try:
        with Unfilled():
            model = build(**config["config"])
    except (TypeError, KeyError) as error:
        raise ValueError(f"{folder / 'config.json'} is damaged: {error}") from error
    if model.semantics() != config.get("semantics"):
        raise ValueError(
            f"{folder} was made for other versions of its mixers: {config.get('semantics')}; "
            f"these are {model.semantics()}"
        )
    own = own_tensors(model)
    if {n: t.shape for n, t in own.items()} != {n: t.shape for n, t in tensors.items()}:
        raise ValueError(f"{folder / 'model.safetensors'} does not fit {folder / 'config.json'}")
    for name, parameter in model.named_parameters():
        parameter.data = parameter.data.to(tensors[name].dtype)  # a model may have several
    model.load_state_dict(tensors, strict=False)  # copied: where a tensor lies in a file may decide its sums' last bits
    return model


def own_tensors(model: Model) -> dict[str, Tensor]:
    """What a file of a model holds: its tensors by name; what has several names (tied, shared) once, by the first."""
    further = further_names(model)
    return {name: tensor for name, tensor in model.state_dict().items() if name not in further}


def further_names(model: Model) -> dict[str, str]:
    """The names of tensors that have several, but for their first; to each its first."""
    first, further = dict[int, str](), dict[str, str]()
    for name, tensor in model.state_dict(keep_vars=True).items():
        if first.setdefault(id(tensor), name) != name:
            further[name] = first[id(tensor)]
    return further


def _version(model: Model) -> int:
    return sum(p._version for p in model.parameters() if not p.is_inference())


def check_inputs(inputs: Tensor, config: ModelConfig) -> None:
    """ValueError unless they are tokens, mixtures of tokens or values that the model takes."""
    if config.vocab_size is None:
        _check_values(inputs, config.outcomes)
    elif inputs.is_floating_point() and inputs.dim() == 3:
        _check_mixtures(inputs, config.vocab_size)
    else:
        _check_tokens(inputs, config.vocab_size)


def _check_tokens(tokens: Tensor, vocab_size: int) -> None:
    if tokens.dim() != 2 or tokens.dtype != torch.long or 0 in tokens.shape:
        raise ValueError(
            "tokens must be (B, T) int64 with at least one row and one column; "
            f"got {tuple(tokens.shape)} {tokens.dtype}"
        )
    low, high = (int(tokens),) * 2 if tokens.numel() == 1 else [int(x) for x in tokens.aminmax()]
    if low < 0 or high >= vocab_size:
        row, column = ((tokens < 0) | (tokens >= vocab_size)).nonzero()[0].tolist()
        found = int(tokens[row, column])
        raise ValueError(
            f"tokens must be (B, T) int64 in [0, {vocab_size}); got {found} at row {row}, position {column}"
        )


def _check_mixtures(weights: Tensor, vocab_size: int) -> None:
    if weights.shape[2] != vocab_size or 0 in weights.shape:
        raise ValueError(
            f"mixtures of tokens must be (B, T, {vocab_size}) float with at least one row and one column; "
            f"got {tuple(weights.shape)} {weights.dtype}"
        )
    wrong = (weights < 0).any(-1) | ~((weights.sum(-1) - 1).abs() < 1e-2)  # NaN is wrong too
    if bool(wrong.any()):
        row, column = wrong.nonzero()[0].tolist()
        found = f"a sum of {float(weights[row, column].sum()):g}, the least {float(weights[row, column].min()):g}"
        raise ValueError(
            f"mixtures of tokens must be weights >= 0 that sum to 1; got {found}, at row {row}, position {column}"
        )


def _check_values(values: Tensor, channels: int) -> None:
    if values.dim() != 3 or not values.is_floating_point() or values.shape[2] != channels or 0 in values.shape:
        raise ValueError(
            f"values must be (B, T, {channels}) float with at least one row and one step; "
            f"got {tuple(values.shape)} {values.dtype}"
        )
    if not bool(values.isfinite().all()):
        row, step, channel = (~values.isfinite()).nonzero()[0].tolist()
        found = float(values[row, step, channel])
        raise ValueError(f"values must be finite; got {found} at row {row}, step {step}, channel {channel}")
