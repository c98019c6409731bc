"""Hidden transfer: vectors of places to come are made from a middle layer's, and run through the rest of the target.

Paper: "Parallel Decoding via Hidden Transfer for Lossless Large Language Model Acceleration" (2024, 2404.12022).

    h_i = h + W_i h,  i = 1..k,   h the output of layer m after the last token that was read                (1)
    p_i = softmax(head(norm(layers m + 1 .. L at h_i, after the text and h_1, ..., h_{i-1})))                 (2)

p_i is the law of the token i places after the newest one. As with Medusa's heads, the newest token is not seen.

| code | paper |
|---|---|
| transfers | k, the pseudo hidden states |
| depth | m, the transfer layer: `lower` are the layers up to it, `upper` those after it, frozen |

The states that h_i leave are dropped. Deviates: one transfer layer for all steps. The paper runs pseudo states in the
verifying pass; here they go through the upper layers alone, and what was accepted once more through the lower ones.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from runnel.draft import Draft, Draw, Seen
from runnel.lineage import Lineage
from runnel.state import Place, State
from runnel.trained import TrainedConfig, TrainedDrafter, frozen
from runnel.trained.heads import Guess, countable, spread
from runnel.trained.stack import added, part_of, sliced
from runnel.trees import Asked, Sketch, grow_all
from runnel.types import Batch

PAPERS = {"Parallel Decoding via Hidden Transfer for Lossless Large Language Model Acceleration": "2404.12022"}
TRAINED = True
PLACES = 16  # of a row, that are learned from at a time


@dataclass(frozen=True)
class Config(TrainedConfig):
    """transfers >= 1: places ahead. depth: in [0, the target's layers); half of them for None."""

    transfers: int = 4
    depth: int | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.transfers < 1:
            raise ValueError(f"transfers must be at least 1; got {self.transfers}")
        if not 0 <= self.layer < len(self.target.layers):
            raise ValueError(f"depth must lie in [0, {len(self.target.layers)}), the target's layers; got {self.layer}")

    @property
    def layer(self) -> int:
        return len(self.target.layers) // 2 if self.depth is None else self.depth


@dataclass
class Memory:
    """place: of the target's state. behind: the place one round before, and what was read from there on."""

    draw: Draw
    place: Place | None = None
    read: list[int] | None = None
    behind: tuple[Place, list[int]] | None = None


class HiddenTransfer(TrainedDrafter):
    config: Config
    looks_back = True

    def make(self, d_model: int) -> None:
        self.transfers = nn.ModuleList(nn.Linear(d_model, d_model, bias=False) for _ in range(self.config.transfers))
        for transfer in self.transfers:
            nn.init.zeros_(transfer.weight)  # type: ignore[arg-type]
        target, cuts, self.width = self.target, [self.config.layer], d_model
        self.frozen = tuple(sliced([*target.layers], cuts, target.norm, d_model, target.embed))  # not registered

    def embedded(self, tokens: Int[Tensor, "*B"]) -> Float[Tensor, "*B E"]:
        return self.frozen[0].embedded(self.embed(tokens), tokens)

    def pseudo(self, hidden: Float[Tensor, "*B E"]) -> Float[Tensor, "*B k E"]:
        stream = hidden[..., : self.width]  # links that are carried behind it stay as they are
        return torch.stack([added(hidden, transfer(stream)) for transfer in self.transfers], dim=-2)  # eq. (1)

    def begin(self, prompt: Sequence[int], draw: Draw) -> Memory:
        return Memory(draw)

    def look_back(self, memory: Memory, seen: Seen) -> None:
        memory.read = [seen.tokens[node] for node in seen.path]

    def stand(self, memory: Memory, place: Place) -> None:
        if memory.place is not None and memory.read is not None:
            memory.behind = (memory.place, memory.read)
        memory.place = place

    def advance(self, memory: Memory, tokens: Sequence[int]) -> None: ...  # `look_back` has said all

    @torch.no_grad()
    def propose_all(self, memories: Sequence[Memory], budgets: Sequence[int]) -> list[Draft]:
        depths = [min(b, self.config.transfers) if m.behind else 0 for m, b in zip(memories, budgets, strict=True)]
        rows = [row for row, depth in enumerate(depths) if depth > 0]
        laws = dict(zip(rows, self._laws([memories[row] for row in rows]) if rows else (), strict=True))
        sketches, draws = [Sketch() for _ in memories], [memory.draw for memory in memories]

        def after(asked: Asked) -> dict[int, Tensor]:
            return {row: laws[row][[sketches[row].depth(node) for node in own]] for row, own in asked.items()}

        grow_all(self.builder, sketches, draws, depths, after)
        return [sketch.draft() for sketch in sketches]

    def _laws(self, memories: Sequence[Memory]) -> Tensor:
        """The logits (N, k, V) of eq. (2)."""
        lower, upper = self.frozen
        behind = [memory.behind for memory in memories if memory.behind is not None]
        tokens = [self.embedded(torch.tensor(read, device=self.device)) for _, read in behind]
        hidden, _ = lower.read(tokens, part_of([place for place, _ in behind], slice(None, self.config.layer)))
        places = part_of([memory.place for memory in memories if memory.place], slice(self.config.layer, None))
        outputs, _ = upper.read(list(self.pseudo(torch.stack([own[-1] for own in hidden]))), places)
        return self.law(torch.stack(outputs)).double().cpu()

    def guesses(self, batch: Batch) -> Iterator[Guess]:
        """What the pseudo vectors say at some places of each row, all at once, each after the state of its place."""
        lineage = Lineage.packed(torch.zeros_like(batch.inputs) if batch.segments is None else batch.segments)
        (lower, upper), length = self.frozen, batch.inputs.shape[1]
        places = spread(length, PLACES, anywhere=self.training).to(batch.inputs.device)
        with torch.no_grad():
            target = self.target.read(batch.inputs, lineage=lineage)
            hidden, _ = lower(self.embedded(batch.inputs), lineage=lineage)
            states = upper.states_at(hidden, places.tolist(), lineage)
        pseudo = self.pseudo(hidden[:, places]).transpose(0, 1).flatten(0, 1)  # (places B, k, D)
        logits = self.law(frozen(upper, pseudo, State.cat(states))[0]).unflatten(0, (len(places), -1)).transpose(0, 1)
        for head in range(1, self.config.transfers + 1):
            here = places[places + head < length]
            kept, tokens = countable(batch, here, head), batch.targets[:, here + head]
            if bool(kept.any()):
                own, laws = logits[:, : len(here), head - 1], target.logits[:, here + head]
                yield Guess(head, own[kept], tokens[kept], laws[kept])


@torch.no_grad()
def reference(drafter: HiddenTransfer, text: Sequence[int]) -> Float[Tensor, "k V"]:
    """Eq. (1) and (2) after a text, all of which goes through all layers anew."""
    hidden, _ = drafter.frozen[0](drafter.embedded(torch.tensor([text])))
    pseudo = [added(hidden[0, -1], made.weight @ hidden[0, -1, : drafter.width]) for made in drafter.transfers]
    y, _ = drafter.frozen[1](torch.cat([hidden[0], torch.stack(pseudo)])[None])
    return drafter.target.head(y[0, len(text) :])
