"""The kernels under the fast floor: Numba's loops if Numba is installed, otherwise NumPy.

``kernels_numpy.py`` defines the same functions with the same arguments as ``kernels_numba.py`` and
``product_kernels_numba.py`` together, except masked cross-attention (``segment_blocks.py``). This file only chooses.
BLAS computes the large matrix products (``fast*.py``). All kernels are serial: ``team.py`` owns the threads. Implements
no section of the chapter.

With NUMBA_DISABLE_JIT=1, a switch of Numba, the loops run as plain Python: slow, but a debugger can step through them.
"""

import warnings

try:
    import numba  # noqa: F401
except ImportError:
    from .kernels_numpy import *  # noqa: F403

    ENGINE = "numpy"
    warnings.warn("Numba is not installed: the slower NumPy kernels are used", stacklevel=2)
else:
    from .kernels_numba import *  # noqa: F403
    from .product_kernels_numba import *  # noqa: F403

    ENGINE = "numba"
