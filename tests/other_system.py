"""A program: commands of the package on a system that lacks what Windows lacks (for test_other_systems.py).

Replacing or removing a file that is open or mapped fails, as on Windows. A process that is spawned runs this file too.
"""

import concurrent.futures
import multiprocessing.popen_spawn_posix
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import matplotlib.figure
import numba
import numpy
import threadpoolctl

OTHERS = (
    concurrent.futures,
    multiprocessing.popen_spawn_posix,
    tempfile,
    subprocess,
    matplotlib,
    numba,
    numpy,
    threadpoolctl,
)  # these know Windows
MODULES = ("fcntl", "resource", "psutil", "msvcrt", "termios", "pwd", "grp")
NAMES = {
    os: ("fork", "forkpty", "killpg", "sysconf", "sched_getaffinity", "O_NOFOLLOW", "O_DIRECTORY", "O_NONBLOCK")
    + ("getuid", "geteuid", "getpgid", "setsid", "mkfifo", "chown", "pread", "pwrite"),
    signal: ("pthread_sigmask", "SIGALRM", "SIGHUP", "alarm", "SIG_BLOCK", "SIG_SETMASK"),
}


def no_folders(plain):
    def opened(path, *arguments, **more):
        if os.path.isdir(path):
            raise PermissionError(13, "Permission denied", os.fspath(path))
        return plain(path, *arguments, **more)

    return opened


def not_in_use(plain):
    def changed(*paths, **more):
        fds = {os.path.realpath(f"/proc/self/fd/{fd}") for fd in os.listdir("/proc/self/fd")}
        maps = Path("/proc/self/maps").read_text(encoding="utf-8", errors="replace")
        for path in map(os.path.realpath, paths):
            is_used = path in fds or f"{path}\n" in maps
            if is_used and not Path(path).name.startswith("pym-"):  # shared memory; Windows has it without a file
                raise PermissionError(13, "The process cannot access the file: it is in use", path)
        return plain(*paths, **more)

    return changed


def take_away():
    for module in MODULES:
        sys.modules[module] = None
    for owner, names in NAMES.items():
        for name in names:
            if hasattr(owner, name):
                delattr(owner, name)
    shutil._use_fd_functions = False
    os.open = no_folders(os.open)
    for name in ("replace", "unlink", "remove"):
        setattr(os, name, not_in_use(getattr(os, name)))
    import tinyflamingo.system

    tinyflamingo.system.WINDOWS = True


take_away()

if __name__ == "__main__":
    from tinyflamingo.cli import main

    sys.exit(main(sys.argv[1:]))
