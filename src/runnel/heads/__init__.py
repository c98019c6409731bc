"""Heads: one distribution a file."""
