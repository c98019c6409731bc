"""Why a plan is the best one."""

from __future__ import annotations

from dataclasses import fields

from runnel.plans._layouts import Layout, Plan

SAME = 0.005
"""Plans whose steps differ by a smaller share are told as equally fast."""


def reasons(found: list[Plan]) -> list[str]:
    """Why the first plan is the best: for each thing that is cut, the best plan that cuts it otherwise."""
    best, told = found[0], []
    for axis in fields(Layout):
        value = getattr(best.layout, axis.name)
        other = next((plan for plan in found if getattr(plan.layout, axis.name) != value), None)
        if other is not None:
            told.append(f"{axis.name}={getattr(other.layout, axis.name)}: {_beside(other, best)}")
    return told


def _beside(other: Plan, best: Plan) -> str:
    """What speaks against a plan."""
    memory, held = sum(other.memory.values()), sum(best.memory.values())
    part = max(other.memory, key=lambda name: other.memory[name] - best.memory[name])
    if not other.fits:
        return f"{memory / held:.2f} times the memory, most of it more {part}, which does not fit"
    slower = other.seconds / best.seconds - 1
    if slower < SAME:
        return f"as fast, with {memory / held:.2f} times the memory"
    where = "computing" if other.compute - best.compute > other.communication - best.communication else "sending"
    return f"{slower:.0%} slower by {where}, with {memory / held:.2f} times the memory"
