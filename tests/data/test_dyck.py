"""Dyck: words nest, depth stays bounded, and a stack knows every closing bracket."""

from __future__ import annotations

import pytest

from runnel.data.dyck import Config, Source
from runnel.types import IGNORE


@pytest.mark.parametrize(("kinds", "depth", "length"), [(4, 8, 64), (2, 1, 10), (3, 2, 33)])
def test_a_stack_solves_it(kinds: int, depth: int, length: int) -> None:
    batch = Source(Config(kinds=kinds, depth=depth), length, batch_size=40).batch(0)
    deepest = 0
    for row, targets in zip(batch.inputs.tolist(), batch.targets.tolist(), strict=True):
        stack: list[int] = []
        for place, (bracket, target) in enumerate(zip(row, targets, strict=True)):
            if bracket < kinds:
                stack.append(bracket)
            else:
                assert stack.pop() == bracket - kinds
            deepest = max(deepest, len(stack))
            following = row[place + 1] if place + 1 < length else None
            if target != IGNORE:
                assert target == kinds + stack[-1]
                assert following in (None, target)
            else:
                assert following is None or following < kinds
            assert target != IGNORE or len(stack) < depth, "at the greatest depth a bracket must close"
            assert target == IGNORE or stack
    assert deepest == depth


def test_closing_what_has_just_opened_is_not_enough() -> None:
    batch = Source(Config(kinds=4, depth=8), length=200, batch_size=200).batch(0)
    asked = batch.targets != IGNORE
    guess = batch.inputs % 4 + 4  # the kind of the newest bracket, opened or closed
    right = float((guess == batch.targets)[asked].double().mean())
    assert 0.4 < right < 0.8
