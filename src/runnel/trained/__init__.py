"""Trained drafters: modules that learn to guess a frozen target's tokens, and know it again when they are loaded.

A page of `drafters/` with `TRAINED = True` defines a `Config` that extends `TrainedConfig`, and a `TrainedDrafter`: a
module of its own weights, which `runnel.train.fit` trains by the objective of the page's name. The target is no part of
the module: its weights get no gradient, and are saved by whoever saves the target.
"""

from __future__ import annotations

import dataclasses
import json
from abc import abstractmethod
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from runnel import catalog
from runnel.draft import Draft
from runnel.drafter import Drafter
from runnel.mixer import parameter_groups
from runnel.model import Model
from runnel.storage import read_json, read_tensors, write_json, write_tensors
from runnel.trees import TreeBuilder

FORMAT = "runnel.drafter"
NOT_SAVED = ("target", "tree")
"""Fields of a Config that a folder does not hold: the target is named by its fingerprint, the tree is chosen anew."""


@dataclass(frozen=True)
class TrainedConfig:
    """target: the model whose tokens are guessed. tree: a builder of `runnel.trees`. seed: of the first weights."""

    target: Model = field(repr=False)
    tree: str | TreeBuilder | Any = "chain"
    seed: int = 0

    def __post_init__(self) -> None:
        if self.target.config.vocab_size is None:
            raise ValueError("a drafter must have a target of tokens; this one is of values")
        if self.target.head.positional:
            raise ValueError("a trained drafter must have a target whose law does not look at the position")

    @property
    def vocab_size(self) -> int | None:
        return self.target.config.vocab_size

    def options(self) -> dict[str, Any]:
        """What a folder holds of it: JSON-able."""
        names = [option.name for option in dataclasses.fields(self) if option.name not in NOT_SAVED]
        options: dict[str, Any] = json.loads(json.dumps({name: getattr(self, name) for name in names}))  # as read back
        return options

    def to_dict(self) -> dict[str, Any]:
        """Everything that decides a drafter but its weights."""
        return {"drafter": catalog.page_name(self), **self.options(), "target": self.target.fingerprint()}


@dataclass(frozen=True)
class ChainedConfig(TrainedConfig):
    """Of drafters that guess one token after the other. max_draft >= 1: how many tokens ahead."""

    max_draft: int = 4

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.max_draft < 1:
            raise ValueError(f"max_draft must be at least 1; got {self.max_draft}")


class TrainedDrafter(nn.Module, Drafter):
    """A drafter with weights, in the dtype of its target and on its device.

    laws: its own heads over tokens, if it has any; all other projections are hidden ones to the optimiser.
    """

    config: TrainedConfig

    def __init__(self, config: TrainedConfig) -> None:
        nn.Module.__init__(self)
        self.config = config
        self.vocab_size = config.vocab_size
        self.builder: TreeBuilder = catalog.make("trees", TreeBuilder, config.tree)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(config.seed)
            self.make(config.target.config.d_model)
        self.to(config.target.norm.weight)

    @abstractmethod
    def make(self, d_model: int) -> None:
        """Make the weights."""

    def propose(self, memory: Any, budget: int) -> Draft:
        return self.propose_all([memory], [budget])[0]

    @property
    def target(self) -> Model:
        return self.config.target

    @property
    def device(self) -> torch.device:
        return self.target.device

    def parameter_groups(self) -> list[dict[str, Any]]:
        """Named parameters by treatment; see `runnel.mixer.parameter_groups`."""
        hidden = nn.ModuleList(part for name, part in self.named_children() if name != "laws")
        return parameter_groups(self, hidden)

    def embed(self, tokens: Tensor) -> Tensor:
        """The target's embeddings (*B, D) of tokens (*B)."""
        with torch.no_grad():
            return self.target.embed(tokens)

    def law(self, hidden: Tensor) -> Tensor:
        """The target's logits (*B, V) of hidden vectors (*B, D), which get the gradient; its weights get none."""
        return frozen(self.target.head, hidden)


def frozen(module: nn.Module, *inputs: Any, **options: Any) -> Any:
    """A module's function whose weights get no gradient."""
    weights = {name: weight.detach() for name, weight in module.named_parameters()}
    return functional_call(module, weights, inputs, options)


def save(drafter: TrainedDrafter, folder: str | Path) -> None:
    """Write config.json and model.safetensors, each atomically. OSError when the disk is full."""
    folder = Path(folder)
    config = {
        "format": FORMAT,
        "version": 1,
        "drafter": catalog.page_name(drafter.config),
        "config": drafter.config.options(),
        "target": drafter.target.fingerprint(),
    }
    write_tensors(folder / "model.safetensors", drafter.state_dict(), {"config": json.dumps(config, sort_keys=True)})
    write_json(folder / "config.json", config)


def is_drafter(folder: str | Path) -> bool:
    """Whether a folder holds what `save` wrote."""
    path = Path(folder) / "config.json"
    content = read_json(path) if path.is_file() else None
    return isinstance(content, dict) and content.get("format") == FORMAT


def load(folder: str | Path, target: Model, tree: str | TreeBuilder | Any = "chain") -> TrainedDrafter:
    """Read a drafter that `save` wrote, for the target that it was trained for. tree: a builder of `runnel.trees`.

    FileNotFoundError when it is not there; ValueError when it is damaged, foreign, or made for another target.
    """
    folder = Path(folder)
    config = read_json(folder / "config.json")
    if not isinstance(config, dict) or config.get("format") != FORMAT:
        raise ValueError(f"{folder / 'config.json'} does not describe a trained drafter")
    tensors, meta = read_tensors(folder / "model.safetensors")
    if meta.get("config") != json.dumps(config, sort_keys=True):
        raise ValueError(f"{folder / 'model.safetensors'} belongs to another config.json")
    if config.get("target") != target.fingerprint():
        raise ValueError(
            f"{folder} was trained for another target: its fingerprint is {config.get('target')}, "
            f"this model's is {target.fingerprint()}"
        )
    try:
        page = catalog.page("drafters", config["drafter"])
        drafter: TrainedDrafter = catalog.class_in(page, TrainedDrafter)(
            page.Config(target=target, tree=tree, **config["config"])
        )
    except (TypeError, KeyError) as error:
        raise ValueError(f"{folder / 'config.json'} is damaged: {error}") from error
    own = drafter.state_dict()
    if {n: t.shape for n, t in own.items()} != {n: t.shape for n, t in tensors.items()}:
        raise ValueError(f"{folder / 'model.safetensors'} does not fit {folder / 'config.json'}")
    drafter.load_state_dict(tensors)
    return drafter
