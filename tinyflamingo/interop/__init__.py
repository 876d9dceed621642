"""Weights from and to the public ports of Flamingo and of its parts (chapter §1).

This package knows the peers' files and the names of their tensors. Their arithmetic is in `variants/`,
where it differs from the chapter's. Not here: the peers' own code; the tests run it where it is installed.
"""
