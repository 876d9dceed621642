"""Other forms of Flamingo's parts, which go through the same loop as the chapter's (`model/flamingo.py`).

The chapter's two contrasts (CLIP's vision transformer, the plain Transformer as a resampler), the ablations of the
paper, and the conventions of the public ports. Each form has its own configuration, which extends one of
`model/config.py`. `registry.py` finds the functions of a configuration.
"""
