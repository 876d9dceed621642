"""A template and files of the command line become the items of a prompt (chapter §4 and §5).

`"<image>Question: what color is it? Answer:" red.png` becomes [picture, "Question: …"]. Only the
template has marks. In the Python API a prompt is a list, and every string in it is plain text.

Not here: the decoding of files (`images.py`, `video.py`) and tokens (`model/interleave.py`).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from tinyflamingo.data.images import Unreadable, load_picture
from tinyflamingo.data.items import EOC
from tinyflamingo.data.preparation import PAD_TO_SQUARE, Preparation
from tinyflamingo.data.video import FPS, is_video, load_video
from tinyflamingo.errors import UserError
from tinyflamingo.language import _

MARK = re.compile(r"(<image>|<video>|<EOC>)")


def read_prompt(
    template: str, files: Sequence[Path], side: int, preparation: Preparation = PAD_TO_SQUARE, fps: float = FPS
) -> list:
    """Items of a prompt: str, `EOC`, pictures uint8 (side, side, 3), videos uint8 (F, side, side, 3).

    fps: frames for each second of a video; without a video it must not differ from `FPS`.

    Raises `UserError` if marks and files differ in number or kind, or a file cannot be read.
    """
    parts = [part for part in MARK.split(template) if part]
    marks = [part for part in parts if part in ("<image>", "<video>")]
    if len(marks) != len(files):
        raise UserError(
            f"the template has {_marks(marks)} (<image> or <video>) but the command has "
            f"{_files(files)}: give one file for each mark, in the same order"
        )
    if not template.strip():
        raise UserError("the prompt is empty: give some text, or an <image> mark and a file")
    if fps != FPS and "<video>" not in marks:
        raise UserError("--fps has no effect without a <video> in the template: remove it")
    media = iter(_read(mark, file, side, preparation, fps) for mark, file in zip(marks, files, strict=True))
    return [next(media) if part in ("<image>", "<video>") else EOC if part == "<EOC>" else part for part in parts]


def _marks(marks):
    return _("1 mark" if len(marks) == 1 else f"{len(marks)} marks")


def _files(files):
    return _("1 file" if len(files) == 1 else f"{len(files)} files")


def _read(mark, file, side, preparation, fps):
    if mark == "<video>":
        try:
            return load_video(file, side, fps, preparation=preparation, shorten=True)
        except Unreadable:
            if is_video(file):  # it is damaged
                raise
            with suppress(UserError):
                load_picture(file, side, preparation)
                mark = "<image>"
            if mark == "<video>":
                raise
        raise UserError(f"{file} is a picture but its mark is <video>: write <image> in the template")
    if file.is_file() and is_video(file):
        raise UserError(f"{file} is a video but its mark is <image>: write <video> in the template")
    return load_picture(file, side, preparation)
