"""Wirings: patterns that were published under a name, one a file; file name = name in patterns: `"samba(window=64)*4"`.

A page has a Config and `pattern(config)`, the layers as a pattern of mixers and blocks.
"""
