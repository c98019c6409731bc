"""Families of published checkpoints, one a file: how a config.json becomes a pattern, and their tensors ours.

A page has

    PAPERS             the family's own report, when it has one
    MODEL_TYPES        the values of config.json's model_type that it reads
    DEFAULTS           fields that a config.json may leave out, as transformers fills them in
    ALIASES            its own names of vocab_size, hidden_size, num_hidden_layers (only where they differ)
    PREFIX             what their names begin with in a whole checkpoint; some folders leave it out ("" for none)
    IGNORED            endings of the names of tensors that hold nothing of the function
    model_config(theirs) -> ModelConfig      theirs: config.json completed by DEFAULTS
    table(theirs) -> Iterator[Entry]         every tensor of ours once; see `runnel.interop.tables`
    constants(theirs)                        names and tensors of theirs that config.json decides (where there are any)

and nothing else: reading, checks, export and the command line are the same for all (`runnel.interop`), what several
families share is in `runnel.interop.parts`. A page says no to what Runnel has no part for (`parts.require`), instead of
reading it wrongly. What a family needs and Runnel lacks becomes a mixer, block or norm, or a field of one. Its test
gives the settings of a small random model; `tests/interop/families/support.py` does the rest.
"""
