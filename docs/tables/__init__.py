"""The generated regions of the texts, for `docs/make_tables.py`: one module for each kind of source."""
