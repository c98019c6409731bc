"""Training steps beside transformers and mambapy: `runnel.bench.steps`, which says how it is run."""

from runnel.bench.steps import main

if __name__ == "__main__":
    main()
