"""Packed models: decode-ready, with the surface of a Model.

    packed = runnel.pack(model, weights="bf16")

Every layer is recorded once on one token and replayed natively for all tokens of a call: a prefill, the next token of
every row, a draft tree. A token's logits have the same bits in all three, whatever else is computed beside it. A layer
with an operation that has no native form runs in PyTorch; `PackedModel.fallbacks` names it and the reason.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from runnel.frame import Positions
from runnel.head import Head
from runnel.lineage import Lineage
from runnel.links import EMBEDDING, TOKENS, Links, Tokens
from runnel.model import LinkedLayer, ModelConfig, Reading, check_inputs
from runnel.packing.memory import Held, Memories
from runnel.packing.segment import Nodes, Segment, nodes_of_chain
from runnel.state import Memory, Pending, PendingState, State, map_memory
from runnel.tree import DraftTree, Verification
from runnel.types import Elements

CHUNK = 256
"""Most tokens of one native call: their vectors should stay in cache."""


class PackedModel:
    """A model as native programs: made by `runnel.pack`, kept by `runnel.save_packed` and `runnel.load_packed`."""

    def __init__(
        self,
        config: ModelConfig,
        weights: str,
        parts: Sequence[Segment | TorchLayer],
        head: Segment | Head,
        embedding: Tensor | None,
        zero: Sequence[Memory],
        fingerprint: str,
        fallbacks: dict[str, str],
        semantics: dict[str, int],
        positions: Tensor | None = None,
    ) -> None:
        """zero: the zero memories of one row. fallbacks: what runs in PyTorch, and why. semantics: as a Model's.

        positions: the vectors of learned positions.
        """
        self.config, self.weights, self.fallbacks, self.semantics = config, weights, fallbacks, semantics
        self.parts, self.head, self.embedding = list(parts), head, embedding
        self.positions = None if positions is None else Positions.holding(positions)
        self._zero, self._fingerprint = tuple(zero), fingerprint

    @property
    def device(self) -> torch.device:
        return torch.device("cpu")

    def fingerprint(self) -> str:
        """That of the model it was packed from when nothing was rounded; else another for each kind of weights."""
        return self._fingerprint

    def init_state(self, batch_size: int) -> State:
        """The zero state of `batch_size` rows."""
        if batch_size < 1:
            raise ValueError(f"batch_size must be at least 1; got {batch_size}")
        zero = map_memory(lambda leaf: leaf.new_zeros(batch_size, *leaf.shape[1:]), self._zero)
        return State(zero, torch.zeros(batch_size, dtype=torch.long), self.fingerprint)

    def own_state(self, state: State) -> State:
        """What of a state is that of the model whose hidden vectors are read: here all of it."""
        return state

    def __call__(
        self, inputs: Elements, state: State | None = None, lineage: Lineage | None = None
    ) -> tuple[Float[Tensor, "B T P"], State]:
        """Head parameters (for tokens: logits) and the next state. As `Model.forward`, without gradients."""
        read = self.read(inputs, state, lineage)
        return read.logits, read.state

    def features(
        self, inputs: Elements, state: State | None = None, lineage: Lineage | None = None
    ) -> tuple[Float[Tensor, "B T D"], State]:
        """As `__call__`, but the normalised hidden vectors that the head sees."""
        hidden, state, _ = self._advance(inputs, state, lineage)
        return hidden, state

    def read(self, inputs: Elements, state: State | None = None, lineage: Lineage | None = None) -> Reading:
        """As `__call__`, with the hidden vectors that the head saw."""
        hidden, state, lineage = self._advance(inputs, state, lineage)
        parameters = self._parameters(hidden.flatten(0, 1), lineage.positions.flatten())
        return Reading(parameters.unflatten(0, hidden.shape[:2]), hidden, state)

    @torch.no_grad()
    def _advance(
        self, inputs: Elements, state: State | None, lineage: Lineage | None
    ) -> tuple[Float[Tensor, "B T D"], State, Lineage]:
        check_inputs(inputs, self.config)
        if lineage is not None and lineage.is_tree:
            raise ValueError("a draft tree has no next state: use model.verify(state, tree)")
        if lineage is not None and lineage.prefix is not None:
            raise ValueError(
                "a packed model reads from left to right: a prefix needs the model that it was packed from"
            )
        batch, length = inputs.shape[:2]
        state = self.init_state(batch) if state is None else state
        if state.batch_size != batch:
            raise ValueError(f"state must have the {batch} rows of the input; got {state.batch_size}")
        if lineage is None:
            lineage = Lineage(state.lengths, length)
        elif (lineage.batch_size, lineage.length) == (batch, length):
            lineage = lineage.at(state.lengths)
        else:
            found = (lineage.batch_size, lineage.length)
            raise ValueError(f"lineage must be ({batch}, {length}), as the input; got {found}")
        step = max(1, CHUNK // batch)
        if not lineage.is_plain or length <= step:
            return *self._piece(inputs, state, lineage), lineage
        pieces = []
        for piece in inputs.split(step, dim=1):
            hidden, state = self._piece(piece, state, Lineage.sequence(batch, piece.shape[1]).at(state.lengths))
            pieces.append(hidden)
        return torch.cat(pieces, dim=1), state, lineage

    def _piece(self, inputs: Tensor, state: State, lineage: Lineage) -> tuple[Tensor, State]:
        nodes = nodes_of_chain(lineage)
        elements = inputs.flatten(0, 1) if lineage.is_plain else inputs[nodes.rows, nodes.columns]
        hidden, layers = self._run(elements, state.layers, nodes)
        end = state.lengths + lineage.length if lineage.is_plain else lineage.end
        return self._padded(hidden, nodes), State(layers, end, self.fingerprint)

    @torch.no_grad()
    def verify(self, state: State, tree: DraftTree) -> Verification:
        """Run every node of a draft tree after its own path, in one call. The state is unchanged."""
        layout = tree.layout(state.batch_size)
        hidden: Tensor
        pending: Pending | None
        if layout.width == 0:
            hidden, pending, positions = torch.zeros(0, self.config.d_model), None, tree.rows
        else:
            check_inputs(tree.tokens[None], self.config)
            native = all(isinstance(part, Segment) for part in self.parts)
            lineage = None if native else layout.lineage().at(state.lengths)
            positions = state.lengths[tree.rows] + _depths(tree.parents)
            nodes = Nodes(tree.rows, tree.parents, positions, layout.columns, state.batch_size, layout.width, lineage)
            hidden, pending = self._run_tree(tree.tokens, state, nodes)
        after = PendingState(state, () if pending is None else pending, layout.columns, tree.rows, tree.parents)
        return Verification(self._parameters(hidden, positions), hidden, after)

    # ---- the function -----------------------------------------------------------------------------------------------

    def _run(self, elements: Tensor, memories: Memory, nodes: Nodes) -> tuple[Tensor, Memory]:
        x, made, held = self._embed(elements, nodes), [], {}
        links = self._links(elements, x, nodes)
        for part, own in self._own(memories):
            if isinstance(part, Segment):
                x, layers, held[part.layers.start] = part.run(x, own, nodes)
                made += layers
            else:
                x, memory, links = self._by_torch(part, x, own, nodes, links)
                made.append(memory)
        return x, _memories(made, held)

    def _run_tree(self, elements: Tensor, state: State, nodes: Nodes) -> tuple[Tensor, Pending]:
        x, left = self._embed(elements, nodes), []
        links = self._links(elements, x, nodes)
        for part, own in self._own(state.layers):
            if isinstance(part, Segment):
                x, verified = part.verify(x, own, nodes)
                left.append(verified)
            else:
                x, pending, links = self._by_torch(part, x, own, nodes, links)
                left.append(pending)

        def advance(memories: Memory, lineage: Lineage, where: Tensor, columns: Tensor) -> Memory:
            chain = nodes_of_chain(lineage)
            place = where.flatten() if lineage.is_plain else where[chain.rows, chain.columns]
            made, held = [], {}
            for (part, own), kept in zip(self._own(memories), left, strict=True):
                if isinstance(part, Segment):
                    layers, held[part.layers.start] = part.commit(kept, own, chain, place)
                    made += layers
                else:
                    made.append(map_memory(lambda p: p.commit(columns, lineage), kept))
            return _memories(made, held)

        columns = torch.arange(nodes.length).expand(nodes.batch_size, -1)
        node_of = columns
        if nodes.batch_size > 1:
            node_of = torch.zeros(nodes.batch_size, nodes.length, dtype=torch.long)
            node_of[nodes.rows, nodes.columns] = torch.arange(nodes.count)
        return x, Pending(advance, state.layers, (node_of, columns))

    def _links(self, elements: Tensor, x: Tensor, nodes: Nodes) -> Links:
        """What layers in PyTorch may take of the model itself."""
        if all(isinstance(part, Segment) for part in self.parts):
            return {}
        links: Links = {EMBEDDING: self._padded(x, nodes)}
        if self.embedding is None:
            return links
        tokens = Tokens.of(elements, self.embedding)
        return {**links, TOKENS: tokens._replace(ids=self._padded(tokens.ids, nodes))}

    def _by_torch(
        self, part: TorchLayer, x: Tensor, memory: Memory, nodes: Nodes, links: Links
    ) -> tuple[Tensor, Memory, Links]:
        """The vectors (N, D) after a layer, its memory, and the links with what it gave."""
        read = self._padded(x, nodes)
        links = {**links, EMBEDDING: read} if part.layers.start == 0 else links  # a native part may have made it
        if isinstance(part.layer, LinkedLayer):
            y, memory, gifts = part.layer(read, memory, nodes.lineage, links)
            links = {**links, **gifts}
        else:
            y, memory = part.layer(read, memory, nodes.lineage)
        return y[nodes.rows, nodes.columns], memory, links

    def _own(self, memories: Memory) -> list[tuple[Segment | TorchLayer, Any]]:
        """Every part with what it reads of the memories of the layers."""
        known = memories.held if isinstance(memories, Memories) else {}
        found: list[tuple[Segment | TorchLayer, Any]] = []
        for part in self.parts:
            if isinstance(part, TorchLayer):
                found.append((part, memories[part.layers.start]))
            elif part.layers.start in known:
                found.append((part, known[part.layers.start]))
            else:
                found.append((part, part.form.hold([memories[i] for i in part.layers])))
        return found

    def _embed(self, elements: Tensor, nodes: Nodes) -> Tensor:
        if self.embedding is None:
            return elements.float()
        x = elements.float() @ self.embedding if elements.is_floating_point() else self.embedding[elements]
        return x if self.positions is None else x + self.positions.of(nodes.positions, None)

    @torch.no_grad()
    def _parameters(self, hidden: Tensor, positions: Tensor) -> Tensor:
        """The head's parameters (N, P) at hidden vectors (N, D)."""
        if isinstance(self.head, Head):
            return self.head(hidden, positions) if self.head.positional else self.head(hidden)
        if hidden.shape[0] == 0:
            return hidden.new_zeros(0, self.head.width)
        return self.head.of_each(hidden)

    def _padded(self, x: Tensor, nodes: Nodes) -> Tensor:
        """(N, D) -> (B, T, D), zero where there is no node."""
        if nodes.count == nodes.batch_size * nodes.length and nodes.lineage is not None and nodes.lineage.is_plain:
            return x.view(nodes.batch_size, nodes.length, -1)
        y = x.new_zeros(nodes.batch_size, nodes.length, x.shape[-1])
        y[nodes.rows, nodes.columns] = x
        return y


class TorchLayer:
    """A layer that has no native form."""

    def __init__(self, index: int, layer: nn.Module) -> None:
        self.layers, self.layer = range(index, index + 1), layer


def _memories(made: Sequence[Memory], held: dict[int, Held]) -> Memories:
    memories = Memories(made)
    memories.held = held
    return memories


def _depths(parents: Tensor) -> Tensor:
    depths: list[int] = []
    for parent in parents.tolist():
        depths.append(0 if parent < 0 else depths[parent] + 1)
    return torch.tensor(depths, dtype=torch.long)
