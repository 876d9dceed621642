"""Omniglot's files: characters of many alphabets, each drawn once by 20 people, and one-shot runs.

Serves chapter §2 to §5 with real pictures (Lake, Salakhutdinov and Tenenbaum 2015). The user downloads the
zip files of the data set. They are read directly; no member is ever unpacked to the disk.

Not here: pictures and episodes of the characters (`drawings.py`), answers and scores of a run (`one_shot.py`).
"""

from __future__ import annotations

import io
import re
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from tinyflamingo.data.images import require_file
from tinyflamingo.errors import UserError
from tinyflamingo.language import _

BACKGROUND = ("images_background_small1.zip", "images_background_small2.zip")
SIDE = 105  # side of a drawing in pixels
DRAWERS = 20  # people who drew each character
MAX_BYTES = 100_000  # largest size of a member; the largest drawing has a few hundred bytes
DRAWING = re.compile(r"(?:[^/]+/)?([^/]+)/([^/]+)/\d+_(\d\d)\.png")

PAIR = re.compile(r"(?:\S*/)?(test/[^/\s]+\.png)\s+(?:\S*/)?(training/[^/\s]+\.png)\s*")


@dataclass(frozen=True)
class Character:
    """A character of an alphabet. drawings: bool (20, 105, 105), True where there is ink, one for each drawer."""

    alphabet: str
    name: str
    drawings: np.ndarray


@dataclass(frozen=True)
class Run:
    """One-shot classification among the characters of an alphabet.

    support: bool (W, 105, 105), one drawing of each of W characters, by one person; queries: bool
    (Q, 105, 105), by another person; answers: (Q,) int, the character of each query.
    """

    name: str
    support: np.ndarray
    queries: np.ndarray
    answers: np.ndarray


def read_background(folder: str | Path) -> list[Character]:
    """All characters of the two small background sets in a folder, each once, sorted.

    Two alphabets are in both sets. A file that is missing or damaged raises `UserError`.
    """
    characters: dict[tuple[str, str], np.ndarray] = {}
    for path in background_files(folder).values():
        characters = _background_set(path) | characters
    return [Character(alphabet, name, characters[alphabet, name]) for alphabet, name in sorted(characters)]


def background_files(folder: str | Path) -> dict[str, Path]:
    """{name: path} of the two small background sets. A missing file raises `UserError`."""
    paths = {name: Path(folder) / name for name in BACKGROUND}
    for name, path in paths.items():
        if not path.exists():
            raise UserError(
                f"cannot find {path}: --data gives the folder with Omniglot's {' and '.join(BACKGROUND)}; "
                f"download {name} into it and do not unpack it"
            )
    return paths


def _background_set(path):
    """{(alphabet, character): drawings} of one file."""
    characters = {}  # {(alphabet, character): {drawer: drawing}}
    with _open(path) as archive:
        for member in _files(archive, path, ".png"):
            parts = DRAWING.fullmatch(member.filename)
            if not parts or not 1 <= int(parts[3]) <= DRAWERS:
                raise UserError(
                    f"{path}: {member.filename!r} is not ALPHABET/CHARACTER/NNNN_DRAWER.png; {_remedy(path)}"
                )
            characters.setdefault((parts[1], parts[2]), {})[int(parts[3])] = _drawing(archive, path, member)
    problems = [
        f"{'/'.join(key)} has {len(drawn)} drawings, not {DRAWERS}"
        for key, drawn in characters.items()
        if len(drawn) != DRAWERS
    ]
    if problems or not characters:
        problem = problems[0] if problems else "it holds no drawing"
        raise UserError(f"{path} is not one of Omniglot's background sets: {problem}; {_remedy(path)}")
    return {key: np.stack([drawn[i] for i in sorted(drawn)]) for key, drawn in characters.items()}


def read_runs(path: str | Path) -> list[Run]:
    """The runs of a zip in the format of Omniglot's all_runs.zip, sorted by name.

    A run is a folder with `training/*.png`, `test/*.png` and `class_labels.txt`. This file has a line for each
    drawing of test: its path, and the path of the drawing of training that shows the same character. A zip in
    which anything is missing, damaged or contradictory raises `UserError`.
    """
    require_file(path, "file of one-shot runs", "give a zip in the format of Omniglot's all_runs.zip")
    with _open(path) as archive:
        members = {member.filename: member for member in _files(archive, path, ".png", ".txt")}
        folders = sorted(
            name.removesuffix("class_labels.txt") for name in members if name.endswith("/class_labels.txt")
        )
        if not folders:
            raise UserError(f"{path} holds no RUN/class_labels.txt: it is not in the format of Omniglot's all_runs.zip")
        return [_run(archive, path, members, folder) for folder in folders]


def _run(archive, path, members, folder):
    def drawings(kind):
        names = sorted(n for n in members if re.fullmatch(rf"{re.escape(folder)}{kind}/[^/]+\.png", n))
        return {f"{kind}/{n.rsplit('/', 1)[1]}": _drawing(archive, path, members[n]) for n in names}

    support, queries = drawings("training"), drawings("test")
    labels = _labels(_read(archive, path, members[folder + "class_labels.txt"]), path, folder)
    unmatched = sorted(set(labels) ^ set(queries)) or sorted(set(labels.values()) - set(support))
    if unmatched or not labels:
        problem = _(f"{unmatched[0]} has no file or no label" if unmatched else "its class_labels.txt is empty")
        raise UserError(f"{path}: run {folder} is not consistent: {problem}; {_remedy(path)}")
    order = list(support)
    answers = np.array([order.index(labels[name]) for name in queries])
    return Run(
        folder.rstrip("/").rsplit("/", 1)[-1], np.stack([*support.values()]), np.stack([*queries.values()]), answers
    )


def _labels(data, path, folder):
    """{"test/NAME": "training/NAME"} of a class_labels.txt. Other folders before the two are ignored."""
    labels = {}
    for line in data.decode("utf-8", "replace").splitlines():
        pair = PAIR.fullmatch(line)
        if not pair:
            raise UserError(
                f"{path}: {folder}class_labels.txt has the line {line!r}, not 'test training'; {_remedy(path)}"
            )
        labels[pair[1]] = pair[2]
    return labels


def make_runs(rng: np.random.Generator, characters: list[Character], n: int = 20, ways: int = 20) -> list[Run]:
    """Runs made as the official ones: the alphabets in turn, `ways` characters of one, drawn by two people.

    One person draws the support, the other person draws each character once as a query, in random order.
    Alphabets with fewer characters are left out; ValueError if no alphabet is left.
    """
    alphabets: dict[str, list[Character]] = {}
    for character in characters:
        alphabets.setdefault(character.alphabet, []).append(character)
    large = [members for members in alphabets.values() if len(members) >= ways]
    if not large:
        raise ValueError(f"no alphabet has {ways} characters")
    return [_make_run(rng, f"run{i + 1:02d}", large[i % len(large)], ways) for i in range(n)]


def _make_run(rng, name, alphabet, ways):
    chosen = [alphabet[i] for i in rng.permutation(len(alphabet))[:ways]]
    teacher, pupil = rng.permutation(DRAWERS)[:2]
    answers = rng.permutation(ways)
    support = np.stack([character.drawings[teacher] for character in chosen])
    return Run(name, support, np.stack([chosen[i].drawings[pupil] for i in answers]), answers)


def pack_runs(runs: list[Run]) -> bytes:
    """Runs as a zip in the official format, which `read_runs` reads."""
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        for run in runs:
            support = [f"{run.name}/training/class{i + 1:02d}.png" for i in range(len(run.support))]
            queries = [f"{run.name}/test/item{i + 1:02d}.png" for i in range(len(run.queries))]
            for name, drawing in zip(support + queries, [*run.support, *run.queries], strict=True):
                archive.writestr(name, _png(drawing))
            lines = [f"{query} {support[i]}\n" for query, i in zip(queries, run.answers, strict=True)]
            archive.writestr(f"{run.name}/class_labels.txt", "".join(lines))
    return packed.getvalue()


# ---- zip files of unknown origin --------------------------------------------------------------


def _remedy(path):
    return _(f"download {Path(path).name} again")


def _open(path):
    try:
        return zipfile.ZipFile(path)
    except zipfile.BadZipFile:
        raise UserError(f"{path} is damaged or not a zip file; {_remedy(path)}") from None
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from error


def _files(archive, path, *endings):
    """The members with one of these endings, without those that macOS adds. A path out of the archive is refused."""
    for member in archive.infolist():
        parts = member.filename.split("/")
        if member.filename.startswith("/") or ".." in parts or "\\" in member.filename or "\0" in member.orig_filename:
            raise UserError(f"{path}: the name {member.filename!r} leads out of the archive; use the official file")
        if member.filename.endswith(endings) and parts[0] != "__MACOSX" and not parts[-1].startswith("._"):
            yield member


def _read(archive, path, member):
    """The bytes of a member; `zipfile` compares their checksum."""
    if member.file_size > MAX_BYTES:
        raise UserError(
            f"{path}: {member.filename!r} has {member.file_size} bytes, too many for a drawing; {_remedy(path)}"
        )
    try:
        return archive.read(member)
    except (zipfile.BadZipFile, zlib.error, EOFError, OSError, RuntimeError, NotImplementedError) as error:
        raise UserError(f"{path}: {member.filename!r} is damaged ({error}); {_remedy(path)}") from error


def _drawing(archive, path, member):
    """A drawing: bool (105, 105), True where there is ink."""
    data = _read(archive, path, member)
    try:
        with Image.open(io.BytesIO(data), formats=("PNG",)) as image:
            if image.size != (SIDE, SIDE):
                raise UserError(
                    f"{path}: {member.filename!r} has {image.size} pixels, not {(SIDE, SIDE)}; {_remedy(path)}"
                )
            return np.asarray(image.convert("L")) < 128
    except UserError:
        raise
    except Exception as error:  # a decoder can raise almost any exception on a broken file
        raise UserError(f"{path}: {member.filename!r} is not a picture; {_remedy(path)}") from error


def _png(drawing):
    packed = io.BytesIO()
    Image.fromarray(np.where(drawing, 0, 255).astype(np.uint8)).convert("1").save(packed, "PNG")
    return packed.getvalue()
