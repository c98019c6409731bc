"""Prompts: ways to read what stands before a text that are not one token after the other, one a file.

A page defines `read`, which gives the state that `generate` goes on from, or what else the prompt is asked for
(`next_byte`), and `PAPERS`.
"""
