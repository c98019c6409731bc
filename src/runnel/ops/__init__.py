"""Primitives: the stateful operations that know what to do with a Lineage, and pure maths shared by the pages above.

Each file shows a literal `reference` loop beside the fast form. A primitive takes per-token tensors (B, T, ...), a
memory and a Lineage, and returns per-token results and the new memory (`Pending` after a tree).
"""
