"""Rows that join a batch while others are written, and leave it before them, write what they write alone."""

import pytest
import torch

from runnel import catalog
from runnel.acceptance import match
from runnel.decode_loop import Batch, Loop
from runnel.decoders import sample
from runnel.drafters import Drafter
from runnel.generation import generate
from runnel.policies import fixed
from runnel.prefill import prefill
from runnel.rows import Row
from tests.decoding.support import CASES, HYBRIDS, RAGGED, assert_same_state, sharp

LIMITS, SEEDS = [30, 7, 18], [3, 5, 8]


@torch.no_grad()
@pytest.mark.parametrize("pattern", HYBRIDS)
@pytest.mark.parametrize("name", ["suffix", "draft_model", "jacobi", "adaptive", "hidden_transfer"])
def test_rows_that_join_and_leave_write_what_they_write_alone(name, pattern):
    model = sharp(pattern, scale=8.0)
    plain = generate(model, RAGGED, LIMITS, seed=SEEDS, temperature=0.9)
    drafter = catalog.make("drafters", Drafter, CASES[name](model))
    loop = Loop(model, drafter, match.Match(match.Config()), fixed.Fixed(fixed.Config()))
    decoder = sample.Sample(sample.Config(temperature=0.9))
    waiting = [
        Row(index, seed, prompt, len(prompt), limit, frozenset(), decoder)
        for index, (seed, prompt, limit) in enumerate(zip(SEEDS, RAGGED, LIMITS, strict=True))
    ]
    batch, left, sizes = Batch(), {}, []
    while waiting or batch.rows:
        if waiting and len(sizes) % 2 == 0:  # one more every other round
            row = waiting.pop(0)
            state = prefill(model, [row.prompt[:-1]], model.init_state(batch_size=1))
            row.memory = drafter.begin(row.prompt, loop.draw_for(row))
            drafter.stand(row.memory, (state, 0))
            batch.join([row], state)
        batch.state = loop.round(batch.rows, batch.state)
        sizes.append(len(batch.rows))
        done = [place for place, row in enumerate(batch.rows) if row.done]
        if done:
            rows = [batch.rows[place] for place in done]
            gone = batch.leave(done)
            left |= {row.index: (row, gone, place) for place, row in enumerate(rows)}
    assert max(sizes) > 1 and sizes[0] == sizes[-1] == 1
    for index, (row, state, place) in left.items():
        assert row.tokens == plain.tokens[index]
        assert_same_state(state, place, plain.state.fork([index]))
