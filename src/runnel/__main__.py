"""`python -m runnel`, which `torchrun -m runnel` starts on every rank."""

from runnel.cli import main

if __name__ == "__main__":
    main()
