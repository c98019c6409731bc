"""Token mixers, one a file; file name = name in patterns."""
