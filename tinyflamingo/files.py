"""Files that are never half-written, and folders that have one writer at a time.

Serves every floor that writes to disk. Not here: what the files hold.
"""

from __future__ import annotations

import os
from contextlib import contextmanager
from pathlib import Path

from tinyflamingo.errors import UserError


def write_atomically(path, data):
    """Temporary file in the same folder, fsync, rename; then the folder's own entry is synced.

    data: bytes, or an iterable of them, which is written as it comes.
    """
    with replacing(path) as file:
        file.writelines([data] if isinstance(data, bytes) else data)


@contextmanager
def replacing(path):
    """A file open for writing that takes the place of `path` when all of it is on the disk, and not before.

    Of a link, that of the file it leads to. A device or a pipe stays what it is, and is written to at once.
    """
    path = Path(path)
    if path.exists() and not (path.is_file() or path.is_dir()):
        with _as_it_is(path) as file:
            yield file
        return
    path = Path(os.path.realpath(path))
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with open(temporary, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise UserError(
            f"cannot write {path}: {error.strerror}; the file that was there before is untouched"
        ) from error
    except Exception:
        temporary.unlink(missing_ok=True)
        raise
    handle = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextmanager
def _as_it_is(path):
    try:
        with open(path, "wb", buffering=0) as file:
            yield file
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror}") from error


@contextmanager
def sole_writer(folder):
    """A block in which no other process may write to the folder; a second one gets a `UserError`.

    The lock is the system's (flock, on the folder itself): nothing is left behind, and it dies with the
    process, however that dies. Where a file system knows no locks, there is none.
    """
    import fcntl

    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(handle)
        raise UserError(
            f"another process is writing to {folder}: wait for it to end, or choose another --out"
        ) from None
    except OSError:
        pass
    try:
        yield
    finally:
        os.close(handle)
