"""The results page from the reports of the others: `runnel.bench.report`, which says how it is run."""

from runnel.bench.report import main

if __name__ == "__main__":
    main()
