"""Files that are never half-written, folders that have one writer at a time, and reading of regular files only.

Serves every floor that writes to disk. Not here: the content of the files.
"""

from __future__ import annotations

import errno
import hashlib
import itertools
import json
import os
import secrets
import stat
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any, BinaryIO

from tinyflamingo import system
from tinyflamingo.errors import UserError, complain

# What a file from others may cost.
LARGEST_JSON = 1 << 26  # bytes of a JSON file that is read whole
MOST_VALUES = 1 << 21  # values of a JSON text: each takes 64 bytes of memory or more
UNPACKED = 16, 1 << 26  # npz or parquet unpack to at most 16 times their bytes and 64 MB
LARGEST_PART = 1 << 28  # bytes of a picture, and of all files of a record in a tar
LONGEST_NAME = 1 << 18  # bytes of a long name, or of other facts, before a file in a tar
MOST_BLOCKS = 1000  # layers of a part of the model
LARGEST_SIZE = 1 << 24  # any other size of a part of the model


def open_regular(path: str | os.PathLike) -> BinaryIO:
    """A file open for reading. A pipe can block for ever, a device can have no end: they are an `OSError`."""
    kind = stat.S_IFMT(os.stat(path).st_mode)
    if kind not in (stat.S_IFREG, stat.S_IFDIR):  # a folder has an error of its own
        raise OSError(errno.EINVAL, "it is not a regular file", os.fspath(path))
    return open(path, "rb")


def read_regular(path: str | os.PathLike, most: int | None = None) -> bytes:
    """All bytes of a file, opened with `open_regular`. More than `most` are an `OSError`."""
    with open_regular(path) as file:
        if most is not None and os.fstat(file.fileno()).st_size > most:
            raise OSError(errno.EFBIG, f"it has more than {most} bytes", os.fspath(path))
        return file.read()


def read_json(path: str | os.PathLike) -> Any:
    """The value of a JSON file. Raises `OSError` or `ValueError`."""
    return parse_json(read_regular(path, LARGEST_JSON))


def parse_json(text: str | bytes) -> Any:
    """The value of a JSON text.

    Raises `ValueError`, also for more values than `MOST_VALUES`, for values that are nested too deeply, and for numbers
    with too many digits.
    """
    check_values(text)
    try:
        return json.loads(text)
    except RecursionError:
        raise ValueError("its values are nested too deeply") from None
    except (json.JSONDecodeError, UnicodeDecodeError):
        raise
    except ValueError:  # Python's message tells the reader to call `sys.set_int_max_str_digits`
        raise ValueError("it has a number with too many digits") from None


def check_values(text: str | bytes) -> None:
    """`ValueError` for a JSON text with more values than `MOST_VALUES`."""
    marks: Any = (b",", b"[", b"{") if isinstance(text, bytes) else (",", "[", "{")
    if sum(map(text.count, marks)) > MOST_VALUES:
        raise ValueError(f"it has more than {MOST_VALUES} values")


def digest(file: Any) -> str:
    """SHA-256 of an open binary file, from its beginning."""
    file.seek(0)
    return hashlib.file_digest(file, "sha256").hexdigest()


def digests(paths: dict) -> dict:
    """{name: SHA-256} of files, {name: path}."""
    by_name = {}
    for name, path in paths.items():
        with open_regular(path) as file:
            by_name[name] = digest(file)
    return by_name


def require_regular(folder: str | os.PathLike) -> None:
    """`UserError` for a pipe or a device in a folder of the program, or in the folders in it.

    Writing to a pipe can wait for ever, and a device does not keep what is written.
    """
    for path in itertools.chain(Path(folder).glob("*"), Path(folder).glob("*/*")):
        if path.exists() and not (path.is_file() or path.is_dir()):
            raise UserError(f"cannot write to {folder}: {path.name} in it is not a regular file; remove it first")


def check_name(path: str | os.PathLike) -> None:
    """`UserError` for a path that Windows does not take as one of a file."""
    if part := system.unwritable_part(path):
        raise UserError(f"cannot write {path}: Windows does not take {part!r} as a name; choose another one")


def write_atomically(path: str | os.PathLike, data: bytes | Iterable) -> None:
    """Write a file so that a crash leaves the old file or the new one, never a part. data: bytes, or pieces of them."""
    pieces: Iterable = [data] if isinstance(data, bytes) else data
    with replacing(path) as file:
        file.writelines(pieces)


@contextmanager
def replacing(path: str | os.PathLike) -> Iterator[IO[bytes]]:
    """A file open for writing. It replaces `path` when all of it is on the disk, and not before.

    Temporary file in the same folder, fsync, rename, fsync of the folder. The mode of a file that is replaced stays. A
    link stays: the file that it points to is replaced. A device or a pipe also stays: it is written directly.
    """
    path = Path(path)
    check_name(path)
    if path.exists() and not (path.is_file() or path.is_dir()):
        with _open_directly(path) as file:
            yield file
        return
    path = Path(os.path.realpath(path))
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}.tmp")  # nobody can guess the name
    try:
        with open(temporary, "xb") as file:
            if path.exists():
                os.chmod(temporary, stat.S_IMODE(path.stat().st_mode))
            yield file
            file.flush()
            os.fsync(file.fileno())
        system.replace(temporary, path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise UserError(f"cannot write {path}: {error.strerror}; the old file, if any, is untouched") from error
    except BaseException:  # also Ctrl-C
        temporary.unlink(missing_ok=True)
        raise
    with suppress(OSError):  # some file systems have no fsync of folders; the file itself is on the disk
        _sync_folder(path.parent)


def _sync_folder(folder):
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextmanager
def _open_directly(path):
    """A device or a pipe, open for writing."""
    try:
        with open(path, "wb", buffering=0) as file:
            yield file
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror}") from error


@contextmanager
def sole_writer(folder: str | os.PathLike) -> Iterator[None]:
    """A block in which this process alone writes to the folder. A second process gets a `UserError`.

    The operating system keeps the lock (on the folder itself, on Windows on a hidden file in it) and drops it when the
    process ends, even if it is killed. A file system without locks gives none.
    """
    handle = system.lock_folder(folder)
    try:
        system.lock(handle)
    except BlockingIOError:
        os.close(handle)
        raise UserError(
            f"another process is writing to {folder}: wait until it ends, or choose another --out"
        ) from None
    except OSError:
        pass  # no locks on this file system
    try:
        yield
    finally:
        os.close(handle)
        with suppress(OSError):
            (Path(folder) / system.LOCK).unlink(missing_ok=True)  # where the folder itself has no handle


@contextmanager
def one_after_another(path: str | os.PathLike) -> Iterator[None]:
    """A block in which this process alone changes the file at `path`. A second process waits, and says so.

    The lock is on a hidden file beside it, because `path` itself is replaced. The file is removed at the end; a killed
    process leaves it, but not the lock. A folder that cannot be written, or a file system without locks, gives none.
    """
    path = Path(os.path.realpath(path))
    lock = path.with_name(f".{path.name}.lock")
    handle = _locked(lock, path)
    try:
        yield
    finally:
        if handle is not None:
            system.remove_lock(handle, lock)


def _locked(lock, path):
    """A handle of the file `lock`, locked; None if no lock is possible."""
    try:
        while True:
            handle = system.lock_file(lock)
            try:
                system.lock(handle)
            except BlockingIOError:
                complain(f"another process is writing to {path}: this one waits until it ends")
                system.lock(handle, wait=True)
            except OSError:  # no locks on this file system
                system.remove_lock(handle, lock)
                return None
            with suppress(FileNotFoundError):
                if os.path.samestat(os.stat(lock), os.fstat(handle)):
                    return handle
            os.close(handle)  # the process before this one has removed the file: lock a new one
    except OSError:
        return None
