"""The loops under the fast floor: Numba's if Numba is here, NumPy's if it is not.

``kernels_numba.py`` and ``kernels_numpy.py`` define the same functions with the same arguments;
this file only chooses. (In masked cross-attention batched products of BLAS stand in for the loops,
``segment_blocks.py``.) Every kernel is one or two passes over memory; the matrix products around
them stay with BLAS (``fast_*.py``). All are serial: on a laptop BLAS owns the threads, and two
teams of threads on the same cores cost more than they bring.

With NUMBA_DISABLE_JIT=1 Numba's own switch applies: its loops run as plain Python, slowly, so
that a debugger can step through them.
"""

import warnings

try:
    import numba  # noqa: F401
except ImportError:
    from .kernels_numpy import *  # noqa: F403

    ENGINE = "numpy"
    warnings.warn("Numba is not installed: the NumPy kernels serve, somewhat slower", stacklevel=2)
else:
    from .kernels_numba import *  # noqa: F403
    from .product_kernels_numba import *  # noqa: F403

    ENGINE = "numba"
