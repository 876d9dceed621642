"""Files of an npm package: of the archive that `npm pack NAME@VERSION` writes, or of a folder with its contents.

No such package is a part of this project: slides and the site read their files when they are built.
"""

from __future__ import annotations

import subprocess
import tarfile
from collections.abc import Iterable
from pathlib import Path


def read_files(package: Path, paths: Iterable[str]) -> dict[str, bytes]:
    """{path in the package: contents}. Raises `KeyError` with a path that the package does not have."""
    if package.is_dir():
        return {path: _read(package / path) for path in paths}
    with tarfile.open(package) as tar:
        return {path: tar.extractfile(f"package/{path}").read() for path in paths}


def _read(path):
    if not path.is_file():
        raise KeyError(path.name)
    return path.read_bytes()


def pack(package: str, folder: Path) -> Path | None:
    """Fetch a package such as "katex@0.19.1" into a folder. Returns the archive, or None without npm or a network."""
    archive = folder / f"{package.replace('@', '-')}.tgz"
    try:
        subprocess.run(["npm", "pack", "--silent", package], cwd=folder, check=True, capture_output=True, timeout=60)
    except (OSError, subprocess.SubprocessError):
        return None
    return archive if archive.is_file() else None
