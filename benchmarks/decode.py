"""Decoding, verifying and prefill beside peers: `runnel.bench.engine`, which says how it is run."""

from runnel.bench.engine import main

if __name__ == "__main__":
    main()
