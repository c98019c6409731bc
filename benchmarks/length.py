"""What a token costs after many tokens: `runnel.bench.lengths`, which says how it is run."""

from runnel.bench.lengths import main

if __name__ == "__main__":
    main()
