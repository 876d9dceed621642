"""Weights from and to the public ports of Flamingo, and their language models (chapter §1).

What serves those peers alone lives here: names of their tensors, conversion, parity. Differences in
convention that the model itself must know are fields of the configuration (`model/config.py`). Not here:
their decoders (`model/public_decoders.py`); the peers' own code, which the tests run beside ours where it is installed.
"""
