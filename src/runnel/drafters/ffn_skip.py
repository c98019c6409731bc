"""FFN skip: the target itself drafts, without the channel blocks that would change a token little.

Paper: "FFN-SkipLLM: A Hidden Gem for Autoregressive Decoding with Adaptive Feed Forward Skipping" (2024, 2404.03865),
algorithm 1. In the layers between the first and the last `spare`, for every token:

    x' = x + block(norm(x))                                       while skip is false, else x' = x        (1)
    skip becomes true when cos(x, x') > threshold                 from the next block on                  (2)

The first `warm` tokens of a text skip nothing. Mixers always run, so that states have their shape and lack no token.

| code | paper |
|---|---|
| threshold | s; 1 skips nothing |
| spare | the cold regions: layers at either end whose blocks always run |
| warm | the tokens that warm up |

Deviates: the paper writes with the skipping model, so that its text is another one. Here it drafts, and the target
decides: the text is the target's. `Skipping(target, config)` is the model alone: `runnel.generate` takes it as any
other, and what it writes is then the paper's, lossy.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import cosine_similarity

from runnel import catalog
from runnel.drafters import Draft, Drafter, Draw
from runnel.lineage import Lineage
from runnel.links import Links, call
from runnel.model import Layer, LinkedLayer, Model
from runnel.state import Memory
from runnel.trees import TreeBuilder

PAPERS = {
    "FFN-SkipLLM: A Hidden Gem for Autoregressive Decoding with Adaptive Feed Forward Skipping": "2404.03865",
}
SKIPS = "skips"


@dataclass(frozen=True)
class Config:
    """target: the model that drafts for itself. max_draft >= 1. tree: a builder of `runnel.trees`."""

    target: Model = field(repr=False)
    threshold: float = 0.95
    spare: int = 1
    warm: int = 4
    max_draft: int = 4
    tree: str | TreeBuilder | Any = "chain"

    def __post_init__(self) -> None:
        if not isinstance(self.target, Model):
            raise ValueError(f"ffn_skip needs a target with layers; got a {type(self.target).__name__}")
        if not -1 <= self.threshold <= 1 or min(self.spare, self.warm) < 0:
            raise ValueError(f"ffn_skip needs a threshold in [-1, 1], and spare and warm >= 0; got {self}")


class _Layer(LinkedLayer):
    """A layer of the target, with the rule."""

    def __init__(self, layer: Layer, config: Config, may_skip: bool) -> None:
        nn.Module.__init__(self)  # its modules are the layer's
        self.frame, self.block, self.config, self.may_skip = layer.frame, layer.block, config, may_skip
        for name, part in layer.named_children():
            setattr(self, name, part)

    def forward(  # type: ignore[override]
        self, x: Float[Tensor, "B T D"], memory: Memory, lineage: Lineage, links: Links
    ) -> tuple[Float[Tensor, "B T D"], Memory, Links]:
        read = self._before("mixer", x)
        y, memory, gifts = call(self.mixer, read, memory, lineage, links)
        x = self._added("mixer", x, read, y)
        if self.block is None or not self.may_skip:
            return self._through_block(x), memory, gifts
        skips, skipped = links.get(SKIPS, (torch.zeros_like(x[..., 0], dtype=torch.bool), 0))
        after = x.clone()
        after[~skips] = self._through_block(x[~skips][None])[0]  # eq. (1)
        alike = cosine_similarity(x, after, dim=-1).clamp(max=1) > self.config.threshold  # eq. (2)
        skips_next = (skips | alike) & (lineage.positions >= self.config.warm)
        return after, memory, {**gifts, SKIPS: (skips_next, skipped + skips.long())}


class Skipping(Model):
    """A model with the weights of another and the rule of a Config. Its states are its own."""

    def __init__(self, target: Model, config: Config) -> None:
        nn.Module.__init__(self)  # its modules are the target's
        self.config, self.rule = target.config, config
        self.embed, self.positions, self.embedding_norm = target.embed, target.positions, target.embedding_norm
        self.norm, self.head, last = target.norm, target.head, len(target.layers) - config.spare
        layers = [_Layer(layer, config, config.spare <= at < last) for at, layer in enumerate(target.layers)]  # type: ignore[arg-type]
        self.layers = nn.ModuleList(layers)

    def fingerprint(self) -> str:
        rule = (self.rule.threshold, self.rule.spare, self.rule.warm)
        return hashlib.sha256(f"{super().fingerprint()} skips {rule}".encode()).hexdigest()[:32]


class FFNSkip(Drafter):
    config: Config

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        page = catalog.page("drafters", "draft_model")
        model = Skipping(config.target, config)
        self.drafter: Drafter = catalog.class_in(page, Drafter)(page.Config(model, config.max_draft, config.tree))
        self.vocab_size = self.drafter.vocab_size

    def begin(self, prompt: Sequence[int], draw: Draw) -> Any:
        return self.drafter.begin(prompt, draw)

    def propose(self, memory: Any, budget: int) -> Draft:
        return self.drafter.propose(memory, budget)

    def propose_all(self, memories: Sequence[Any], budgets: Sequence[int]) -> list[Draft]:
        return self.drafter.propose_all(memories, budgets)

    def advance(self, memory: Any, tokens: Sequence[int]) -> None:
        self.drafter.advance(memory, tokens)


def reference(model: Skipping, x: Float[Tensor, "T D"], first: int = 0) -> tuple[Float[Tensor, "T D"], list[int]]:
    """Eq. (1) and (2) for layers whose mixers add nothing, token by token; first: the position of the first.

    The vectors after all layers, and how many blocks each token skipped.
    """
    rule, made, skipped = model.rule, [], []
    for position, token in enumerate(x, start=first):
        skip, count = False, 0
        for layer in model.layers:
            before = token
            if not skip or not layer.may_skip:
                token = token + layer.block(layer.block_norm(token)[None, None])[0, 0]  # type: ignore[operator]
            count += skip and bool(layer.may_skip)
            alike = float(before @ token / before.norm() / token.norm()) > rule.threshold
            skip = (skip or (alike and bool(layer.may_skip))) and position >= rule.warm
        made.append(token)
        skipped.append(count)
    return torch.stack(made), skipped
