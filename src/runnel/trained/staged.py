"""Staged: drafters that read the text with layers of their own, and stop at the first exit that says enough.

The layers are parted into stages. Every token goes through the first one; its exit, and those of the stages after it,
give laws, and the next stage is asked only where a law is not enough. A stage that was left out reads what it missed
when it is next asked. Known tokens stay read; guesses have states of their own, which are dropped.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from runnel.draft import Draft, Draw
from runnel.head import Head
from runnel.lineage import Lineage
from runnel.state import Place
from runnel.trained import ChainedConfig, TrainedDrafter
from runnel.trained.stack import Stack
from runnel.trees import ROOT, Asked, Sketch, grow_all


@dataclass
class Memory:
    """read, unread: by stage, the place that has read all of the text but the vectors (T, D) that are held.

    reached: the place of a node of the sketch by (node, stage); given: the vectors that the stage gave of it.
    """

    text: list[int]
    draw: Draw
    read: list[Place]
    unread: list[list[Tensor]]
    sketch: Sketch = field(default_factory=Sketch)
    reached: dict[tuple[int, int], Place] = field(default_factory=dict)
    given: dict[tuple[int, int], Tensor] = field(default_factory=dict)


class Staged(TrainedDrafter):
    """embedding, stages, norm and head: a model of its own, which one norm and one head serve at every exit."""

    config: ChainedConfig
    embedding: nn.Module
    stages: nn.ModuleList
    norm: nn.Module
    head: Head

    @abstractmethod
    def enough(self, logits: Float[Tensor, "N V"]) -> Bool[Tensor, "N"]:
        """Where the law of an exit is taken, and no deeper stage is asked."""

    @property
    def parts(self) -> list[Stack]:
        return [stage for stage in self.stages if isinstance(stage, Stack)]

    def exits(self, tokens: Int[Tensor, "B T"], lineage: Lineage | None = None) -> list[Float[Tensor, "B T V"]]:
        """The logits of every exit after every token."""
        x, found = self.parts[0].embedded(self.embedding(tokens), tokens), []
        for stage in self.parts:
            x = stage(x, lineage=lineage)[0]
            found.append(self.head(self.norm(x)))
        return found

    def begin(self, prompt: Sequence[int], draw: Draw) -> Memory:
        read: list[Place] = [(stage.init_state(1), 0) for stage in self.parts]
        return Memory(list(prompt), draw, read, [[] for _ in self.parts])

    def advance(self, memory: Memory, tokens: Sequence[int]) -> None:
        memory.text.extend(tokens)

    @torch.no_grad()
    def propose_all(self, memories: Sequence[Memory], budgets: Sequence[int]) -> list[Draft]:
        for memory, budget in zip(memories, budgets, strict=True):
            memory.sketch, memory.reached, memory.given = Sketch(), {}, {}
            if budget > 0 and memory.text:
                memory.unread[0].append(self._embedded(memory.text))
                memory.text = []
        sketches, draws = [memory.sketch for memory in memories], [memory.draw for memory in memories]
        depths = [min(budget, self.config.max_draft) for budget in budgets]
        grow_all(self.builder, sketches, draws, depths, lambda asked: self._after(memories, asked))
        return [sketch.draft() for sketch in sketches]

    def _after(self, memories: Sequence[Memory], asked: Asked) -> dict[int, Tensor]:
        """The logits after nodes of the rows' sketches: one call of a stage for all nodes that need it."""
        nodes = [(memories[row], node) for row, own in asked.items() for node in own]
        found: list[Tensor] = [torch.empty(0)] * len(nodes)
        still = list(range(len(nodes)))
        for depth in range(len(self.parts)):
            logits = self._through(depth, [nodes[at] for at in still])
            for at, each in zip(still, logits, strict=True):
                found[at] = each.double().cpu()
            still = [at for at, enough in zip(still, self.enough(logits).tolist(), strict=True) if not enough]
            if not still:
                break
        each_row = torch.stack(found).split([len(own) for own in asked.values()])
        return dict(zip(asked, each_row, strict=True))

    def _through(self, depth: int, nodes: Sequence[tuple[Memory, int]]) -> Tensor:
        """One stage for some nodes: the logits (N, V) of its exit."""
        behind = {id(memory): (memory, ROOT) for memory, _ in nodes if memory.unread[depth]}
        for some in (list(behind.values()), [(memory, node) for memory, node in nodes if node != ROOT]):
            if some:
                self._read(depth, some)
        return self.head(self.norm(torch.cat([memory.given[node, depth] for memory, node in nodes])))

    def _read(self, depth: int, nodes: Sequence[tuple[Memory, int]]) -> None:
        """Let a stage read what it missed on the way to each node."""
        ways = [self._way(memory, node, depth) for memory, node in nodes]
        pieces = [self._vectors(memory, way, depth) for (memory, _), (way, _) in zip(nodes, ways, strict=True)]
        outputs, state = self.parts[depth].read(pieces, [place for _, place in ways])
        for at, ((memory, node), (way, _), given) in enumerate(zip(nodes, ways, outputs, strict=True)):
            memory.reached[node, depth] = (state, at)
            memory.given |= {
                (one, depth): vector for one, vector in zip(way[::-1], given.flip(0).split(1), strict=False)
            }
            if node == ROOT:
                memory.read[depth], memory.unread[depth] = (state, at), []
                if depth + 1 < len(self.parts):
                    memory.unread[depth + 1].append(given)

    def _way(self, memory: Memory, node: int, depth: int) -> tuple[list[int], Place]:
        """The nodes that a stage has to read to reach a node, the node last, and from where."""
        way = [node]
        while way[0] != ROOT:
            above = memory.sketch.parents[way[0]]
            if above == ROOT or (above, depth) in memory.reached:
                return way, memory.read[depth] if above == ROOT else memory.reached[above, depth]
            way.insert(0, above)
        return way, memory.read[depth]

    def _vectors(self, memory: Memory, way: Sequence[int], depth: int) -> Tensor:
        """What a stage reads of nodes; of the root, all of the text that it missed."""
        if way == [ROOT]:
            return torch.cat(memory.unread[depth])
        if depth == 0:
            return self._embedded([memory.sketch.tokens[node] for node in way])
        return torch.cat([memory.given[node, depth - 1] for node in way])

    def _embedded(self, tokens: Sequence[int]) -> Tensor:
        asked = torch.tensor(tokens, device=self.device)
        return self.parts[0].embedded(self.embedding(asked), asked)
