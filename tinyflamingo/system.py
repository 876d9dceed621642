"""What differs between Linux, macOS and Windows: locks, memory, processes, and names of files.

Every other file of the package is the same on all systems, or asks here. Windows and macOS were not at hand: the tests
take away what they lack (`tests/test_other_systems.py`). Not here: the content of files (`files.py`).
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from tinyflamingo.language import _

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]
try:
    import msvcrt
except ImportError:  # any other system
    msvcrt = None  # type: ignore[assignment]

WINDOWS = os.name == "nt"
# macOS has fork, but its libraries fail after it
START = "fork" if sys.platform == "linux" and hasattr(os, "fork") else "spawn"
PATIENCE = 20, 0.1  # times, seconds: a virus scanner keeps a new file open for a moment
# On Windows these are devices, and a colon begins a hidden part of a file.
DEVICE = re.compile(r"(CON|PRN|AUX|NUL|COM\d|LPT\d) *(\..*)?", re.IGNORECASE)
FORBIDDEN = re.compile(r'[<>:"|?*\x00-\x1f]|[. ]$')


def unwritable_part(path: str | os.PathLike) -> str | None:
    """The first part of a path that Windows does not take as the name of a file; None on other systems."""
    parts = Path(path).parts[bool(Path(path).anchor) :] if WINDOWS else ()
    return next((p for p in parts if p != ".." and (DEVICE.fullmatch(p) or FORBIDDEN.search(p))), None)


def replace(source: str | os.PathLike, target: str | os.PathLike) -> None:
    """`os.replace`. On Windows, a target that is open is an error; it is tried again for two seconds."""
    times, seconds = PATIENCE if WINDOWS else (0, 0.0)
    for _time in range(times):
        try:
            return os.replace(source, target)
        except PermissionError:
            time.sleep(seconds)
    os.replace(source, target)


# ---- locks ---------------------------------------------------------------------------------------


def lock_file(path: str | os.PathLike) -> int:
    """A handle of the file to lock, which is made if it is not there. A link is an `OSError`."""
    return os.open(path, os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0), 0o666)


def lock_folder(folder: str | os.PathLike) -> int:
    """A handle to lock in place of a folder: the folder itself, or a hidden file in it where folders have no handle."""
    return os.open(folder, os.O_RDONLY) if fcntl else lock_file(Path(folder) / LOCK)


LOCK = ".lock"


def lock(handle: int, wait: bool = False) -> None:
    """Lock a file until its handle is closed or the process ends. `BlockingIOError` if another process has the lock.

    wait: until the other process ends. Without locks on this system, or on its file system, it is an `OSError`.
    """
    if fcntl:
        fcntl.flock(handle, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        return
    if not msvcrt:
        raise OSError("no locks on this system")
    while True:
        try:
            return msvcrt.locking(handle, msvcrt.LK_NBLCK, 1)  # type: ignore[attr-defined]
        except OSError as error:
            if not wait:
                raise BlockingIOError(*error.args) from error
            time.sleep(PATIENCE[1])


def remove_lock(handle: int, path: Path) -> None:
    """Close a locked file and remove it. It is removed first, so that nobody locks a file that is then removed.

    Windows removes no open file. There it stays if another process waits for it.
    """
    if fcntl:
        path.unlink(missing_ok=True)
    os.close(handle)
    if not fcntl:
        with contextlib.suppress(OSError):
            path.unlink(missing_ok=True)


# ---- memory --------------------------------------------------------------------------------------


def peak_memory_mb(workers: int = 1) -> float | None:
    """Largest resident memory of this process and its workers so far, in MB; what they share counts for each.

    On Windows that of this process times the workers, if psutil is installed; else None.
    """
    try:
        import resource
    except ImportError:
        peak = getattr(_psutil_memory(), "peak_wset", None)
        return peak and round(workers * peak / 1024**2, 1)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    peak += (workers - 1) * resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    return round(peak / (1024**2 if sys.platform == "darwin" else 1024), 1)


def _psutil_memory() -> Any:
    try:
        import psutil
    except ImportError:
        return None
    return psutil.Process().memory_info()


def machine_memory_gb() -> float | None:
    """Memory of the machine; None if neither the system nor psutil says it."""
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30
    except (AttributeError, ValueError, OSError):
        pass
    try:
        import psutil
    except ImportError:
        return None
    return psutil.virtual_memory().total / 2**30


def number(value: float | None, unit: str, digits: int = 0) -> str:
    """ "1900 MB", or that it is unknown."""
    return _("unknown (pip install psutil)") if value is None else f"{value:.{digits}f} {unit}"


# ---- processes -----------------------------------------------------------------------------------


def end_group(process: subprocess.Popen) -> None:
    """End a process that was started with `start_new_session`, and those that it has started (not on Windows)."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        if hasattr(os, "killpg"):
            os.killpg(process.pid, signal.SIGKILL)
        else:
            process.kill()
    process.wait()
