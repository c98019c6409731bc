"""What the processes of the tests of layouts do."""

import torch
import torch.distributed as dist

import runnel
from runnel.layouts import _pieces
from runnel.train import Mesh, TrainConfig, opened  # noqa: F401
from runnel.types import Batch

LENGTH = 24
_pieces.QUERIES = 5  # several pieces a slice


def packed_batch(length=LENGTH, seed=0, vocab=11):
    """Ragged documents that cross the borders of slices, padding in the middle and at the end, one row without."""
    draws = torch.Generator().manual_seed(seed)
    tokens = torch.randint(0, vocab, (2, length + 1), generator=draws)
    segments = torch.zeros(2, length, dtype=torch.long)
    segments[0, 5:] = 1
    segments[0, length // 2 :] = 2  # a document begins with a slice
    segments[0, -4:] = -1
    targets = tokens[:, 1:].clone()
    targets[segments < 0] = runnel.IGNORE
    return Batch(tokens[:, :-1], targets, segments)


def plain_batch(length=LENGTH, seed=0, vocab=11):
    draws = torch.Generator().manual_seed(seed)
    tokens = torch.randint(0, vocab, (2, length + 1), generator=draws)
    return Batch(tokens[:, :-1], tokens[:, 1:].clone())


def model_of(pattern, d_model=8):
    torch.manual_seed(0)
    return runnel.build(pattern, 11, d_model, channel=None).double()


def alone(pattern, batch):
    """(mean loss, gradient, last state) of one process."""
    from runnel.objectives import next_token

    model = model_of(pattern)
    loss = next_token.loss(model, batch)
    loss.backward()
    return float(loss.detach()), flat_gradient(model), flat_state(model, batch.inputs, batch.lineage)


def shared_out(pattern, batches, ranks):
    """What `alone` finds for each batch, computed on one of the ranks and told to all."""
    everyone, places = [None] * ranks.mesh.size, range(ranks.index, len(batches), ranks.mesh.size)
    dist.all_gather_object(everyone, {place: alone(pattern, batches[place]) for place in places})
    return [everyone[place % ranks.mesh.size][place] for place in range(len(batches))]


def flat_gradient(model):
    return torch.cat([torch.zeros(p.numel()) if p.grad is None else p.grad.flatten() for p in model.parameters()])


def flat_state(model, inputs, lineage):
    from runnel.state import leaves

    with torch.no_grad():
        _, state = model(inputs, lineage=lineage)
    return torch.cat([leaf.flatten().double() for leaf in leaves(state.layers)]), state.lengths


def compare(mesh, exchange, patterns, with_state=True, length=LENGTH):
    """For each pattern (or its refusal): the largest difference of loss, gradient and state from one process."""
    from runnel.objectives import next_token

    found = {}
    with opened(mesh, exchange) as ranks:
        for pattern in patterns:
            worst, batches = 0.0, (plain_batch(length), packed_batch(length))
            for batch, wanted in zip(batches, shared_out(pattern, batches, ranks), strict=True):
                model, share = model_of(pattern), ranks.own(batch)
                try:
                    weight = share.n_targets / batch.n_targets
                    loss = next_token.loss(model, share.batch) * weight
                except ValueError as error:
                    worst = str(error)
                    break
                loss.backward()
                ranks.sum_gradients(model)
                total = ranks.total(float(loss.detach()))
                worst = max(worst, abs(total - wanted[0]), float((flat_gradient(model) - wanted[1]).abs().max()))
                if with_state and mesh.data == 1:
                    state, lengths = flat_state(model, share.batch.inputs, share.batch.lineage)
                    assert lengths.equal(wanted[2][1]), (lengths, wanted[2][1])
                    worst = max(worst, float((state - wanted[2][0]).abs().max()))
            found[pattern] = worst
    return found


def bytes_sent(mesh, exchange, pattern, lengths):
    """Bytes that each rank hands to collectives in one forward and backward, by length of the whole row."""
    from runnel.layouts._traffic import Traffic
    from runnel.objectives import next_token

    sent = []
    with opened(mesh, exchange) as ranks:
        for length in lengths:
            model, share = model_of(pattern), ranks.own(plain_batch(length))
            with Traffic() as traffic:
                next_token.loss(model, share.batch).backward()
            sent.append(dict(traffic.bytes))
    return sent


def carried_on(mesh, exchange, pattern):
    """A second call that goes on from the state of the first: (largest difference from one process, its lengths)."""
    from runnel.objectives import next_token  # noqa: F401

    first, second = plain_batch(seed=1), packed_batch(seed=2)
    with opened(mesh, exchange) as ranks:
        model = model_of(pattern)
        _, state = model(first.inputs)
        wanted, _ = model(second.inputs, state, second.lineage)
        wanted[second.targets >= 0].square().sum().backward()
        gradient = flat_gradient(model)
        model.zero_grad()
        begun, going = ranks.own(first).batch, ranks.own(second).batch
        _, state = model(begun.inputs, lineage=begun.lineage)
        logits, after = model(going.inputs, state, going.lineage)
        logits[going.targets >= 0].square().sum().backward()
        ranks.sum_gradients(model)
        size = going.inputs.shape[1]
        begin = ranks.index % mesh.sequence * size
        kept = going.targets >= 0
        difference = (logits - wanted[:, begin : begin + size])[kept].abs().max()
        return float(difference.detach()), float((flat_gradient(model) - gradient).abs().max()), after.lengths.tolist()
