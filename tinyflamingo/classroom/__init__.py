"""For teachers: the zip that students get, and the marks of what they hand in (``python -m tinyflamingo class``).

Not here: the exercises (`notebooks/`) and what judges an answer (`checks/`).
"""
