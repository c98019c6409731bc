"""The type checker that the import hook of conftest.py puts on pages: beartype, an int being welcome as a float."""

from beartype import BeartypeConf, beartype

check = beartype(conf=BeartypeConf(is_pep484_tower=True))
