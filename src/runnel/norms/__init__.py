"""Norms, one a file: what keeps the vectors of the residual stream at one size. They look at one token at a time."""
