"""Weights from and to the public ports of Flamingo, and their language models (chapter §1).

What serves those peers alone lives here: files, names, their decoders. Differences in convention
that the model itself must know are fields of the configuration (`model/config.py`). Not here: the
peers' own code; the tests run it beside ours where it is installed.
"""
