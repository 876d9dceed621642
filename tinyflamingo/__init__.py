"""tinyflamingo: Flamingo by hand, in readable NumPy, on a laptop."""

__version__ = "0.1.0"
