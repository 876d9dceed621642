"""The user's videos, prepared for the vision encoder (chapter §2), with one frame per second.

A video is a sequence of frames: 1 per second in training; the paper evaluates at 3 per second. Each
frame is prepared like a picture (`images.py`). PyAV, which contains FFmpeg, reads the files. It is
imported only when it is needed. Pillow reads animated WebP and PNG, which few builds of FFmpeg can read.

Not here: whether a file is cut short (`cut_files.py`), sound, subtitles, the choice of a clip in a long
video, pixels that are not square.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from fractions import Fraction
from functools import partial
from typing import Any, BinaryIO

import numpy as np

from tinyflamingo.data.cut_files import is_chained, is_cut, transport_packet
from tinyflamingo.data.images import (
    HEIC,
    MAX_PIXELS,
    Unreadable,
    fit_image,
    is_animated_webp,
    no_memory,
    prepare_picture,
    require_file,
    too_large,
    with_picture,
)
from tinyflamingo.data.preparation import PAD_TO_SQUARE, Preparation, require_square
from tinyflamingo.errors import UserError
from tinyflamingo.files import LARGEST_PART, open_regular

MAX_WORK = 1 << 31, 4096  # most pixels of all decoded frames: 2^31, plus 4096 for each byte of the file
MAX_DECODED = 100_000  # largest number of frames that are decoded: 600 seconds at 120 per second, and some more
TICK = 1e-3  # seconds; Matroska rounds times to this unit, so a frame may be early by this much
JUMP = 10  # seconds; a longer gap in a transport or program stream is a place where two recordings were joined

# FFmpeg also reads playlists, which open other files or addresses, and turns plain text into video.
# So only real containers are allowed, and they may open no file but their own.
_CONTAINERS = "mov,mp4,matroska,webm,avi,gif,mpegts,mpeg,mpegvideo,flv,ogg,asf,yuv4mpegpipe"
_OPTIONS = {"format_whitelist": _CONTAINERS, "protocol_whitelist": "none"}

_CUT = ("it is damaged or cut short", "copy or export it again")
_REMEDY = "give an mp4, mov, webm, mkv, avi or animated GIF"
EXTENSIONS = (
    ".mp4", ".m4v", ".mov", ".qt", ".3gp", ".3g2", ".webm", ".mkv", ".avi", ".mpg", ".mpeg", ".m1v", ".m2v", ".vob",
    ".ts", ".mts", ".m2ts", ".m2t", ".flv", ".f4v", ".ogv", ".wmv", ".asf", ".y4m",
)  # fmt: skip
ANIMATED = (".gif", ".webp", ".png", ".apng")  # extensions of pictures that can be animated
FPS = 1.0  # frames of a second that the model gets, as in the paper's training


# ---- reading ---------------------------------------------------------------------------------


def load_video(
    path_or_file: str | os.PathLike | BinaryIO,
    side: int = 32,
    fps: float = FPS,
    max_frames: int = 32,
    max_seconds: float = 600,
    shorten: bool = False,
    preparation: Preparation = PAD_TO_SQUARE,
) -> np.ndarray:
    """Frames at 0, 1/fps, 2/fps, ... seconds after the first frame: uint8 (F, side, side, 3).

    Each is the first frame at or after its time. Times are presentation times, so the frame rate may vary. Rotation and
    mirroring in the metadata are applied. shorten: a longer video is no error but gives its first max_frames frames.

    Raises `UserError`, one line with the file's name, if the file is cut short, damaged or too large. It is too large
    with more than max_frames frames, more than max_seconds, or more than images.MAX_PIXELS pixels in a frame.
    """
    require_square(side, preparation)
    if not 0 < fps < float("inf"):
        raise UserError(f"cannot take {fps} frames per second; give a number above 0")
    name, opened = _open(path_or_file)
    limits = (fps, max_frames, max_seconds, shorten)
    try:
        with opened as file:
            if is_cut(file):
                raise Unreadable("video", name, *_CUT)
            if is_chained(file):
                raise Unreadable("video", name, "it is several Ogg videos, one after the other", "save it as one mp4")
            most = MAX_WORK[0] + MAX_WORK[1] * file.seek(0, os.SEEK_END)
            read = _read_animation if _kind(file) == "animation" else _read_container
            return read(
                file, name, lambda frames: _sample(_limited(frames, name, most), name, (side, preparation), *limits)
            )
    except UserError:
        raise
    except MemoryError:
        raise no_memory("video", name) from None
    except (_import_av().FFmpegError, OSError, ValueError, LookupError, ArithmeticError):
        # FFmpegError is listed because av.error.EOFError inherits from none of the others
        known = hasattr(path_or_file, "read") or is_video(path_or_file)
        raise Unreadable("video", name, *(_CUT if known else ("it is not a video", _REMEDY))) from None


def _open(path_or_file) -> tuple[str, Any]:
    if hasattr(path_or_file, "read"):
        return str(getattr(path_or_file, "name", "from memory")), nullcontext(path_or_file)
    name = require_file(path_or_file, "video", _REMEDY)
    return name, open_regular(path_or_file)


def _limited(frames, name, most):
    """(time, function) of (time, function, pixels), until the pixels of all frames are more than a file may cost."""
    for time, picture, pixels in frames:
        most -= pixels
        if most < 0:
            raise Unreadable("video", name, "its frames have too many pixels", "make it smaller or shorter first")
        yield time, picture


def _sample(frames, name, square, fps, max_frames, max_seconds, shorten) -> np.ndarray:
    """uint8 (F, side, side, 3) from (time in seconds, function that gives the picture). Only samples stay in memory."""
    pictures: list[np.ndarray] = []
    start = None
    for index, (time, picture) in enumerate(frames):
        start = time if start is None else start
        due = int((time - start + TICK) * fps) + 1  # number of sample times up to this frame
        if due > max_frames and not shorten:
            wrong = f"at {fps:g} frames per second it gives more than {max_frames} frames"
            raise Unreadable("video", name, wrong, "cut it shorter")
        if time - start > max_seconds and not shorten:
            raise Unreadable("video", name, f"it is longer than {max_seconds:g} seconds", "cut it shorter")
        if index >= MAX_DECODED:
            raise Unreadable("video", name, f"it has more than {MAX_DECODED} frames", "cut it shorter")
        missing = min(due, max_frames) - len(pictures)
        if missing > 0:
            pictures += [picture(*square)] * missing
        if due > max_frames:
            break
    if not pictures:
        raise Unreadable("video", name, "it has no frames", _REMEDY)
    return np.stack(pictures)


# ---- animated pictures -----------------------------------------------------------------------


def _read_animation(file, name, sample) -> np.ndarray:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow's warnings do not help the user
            return with_picture(file, name, lambda image: sample(_timed_pictures(image, name)))
    except (UserError, MemoryError):
        raise
    except Exception as error:  # on a broken file Pillow can raise nearly anything
        raise ValueError("a broken animation") from error


def _timed_pictures(image: Any, name: str) -> Iterator[tuple[float, Callable[..., np.ndarray], int]]:
    if image.width * image.height > MAX_PIXELS:
        raise too_large("video", name)
    time = 0.0
    # a PNG can have a picture that is not part of its animation, for programs that show no animations
    for number in range(bool(image.info.get("default_image")), image.n_frames):
        image.seek(number)
        image.load()
        yield time, partial(fit_image, image, name), image.width * image.height
        delay = image.info.get("duration", 0)
        time += (delay if delay > 10 else 100) / 1000  # as in browsers; FFmpeg does the same for a GIF


# ---- containers ------------------------------------------------------------------------------


def _read_container(file, name, sample) -> np.ndarray:
    guarded = _GuardedFile(file)
    file.seek(0)
    av = _import_av()
    # a title that is not UTF-8 is no error; from version 19 on that is so without this option, which is gone
    more = {"metadata_errors": "ignore"} if int(av.__version__.split(".")[0]) < 19 else {}
    with av.open(guarded, container_options=_OPTIONS, **more) as container:
        stream = _video_stream(container, name)
        frames = sample(map(guarded.with_frame, _timed_frames(container, stream, name)))
    if guarded.lost:
        raise ValueError("the file names a position that does not exist in it, or has no frames for many megabytes")
    return frames


class _GuardedFile:
    """A file whose `seek` to an impossible position (from a damaged header) returns -1 and sets `lost`.

    FFmpeg reads -1 as a failure. If `seek` raised an exception, PyAV would print a traceback. The file ends, and is
    lost too, after LARGEST_PART bytes without a frame: FFmpeg would look for one in gigabytes of zeros.
    """

    def __init__(self, file):
        self.file, self.lost, self.left = file, False, LARGEST_PART

    def __getattr__(self, name):
        return getattr(self.file, name)

    def read(self, size):
        data = self.file.read(size)
        self.left -= len(data)
        self.lost = self.lost or self.left < 0
        return b"" if self.lost else data

    def with_frame(self, frame):
        """The frame; from here on the file may go on as far again."""
        self.left = LARGEST_PART
        return frame

    def seek(self, *place):
        try:
            return self.file.seek(*place)
        except (OSError, ValueError, OverflowError):
            self.lost = True
            return -1


def _import_av():
    try:
        import av
    except ImportError:
        raise UserError("reading video needs PyAV, which is missing: pip install av") from None
    return av


def _video_stream(container, name: str):
    """The first video stream that is not a cover picture, set to decode in the same way each time."""
    for stream in container.streams.video:
        if stream.disposition & type(stream.disposition).attached_pic:
            continue
        if stream.codec_context is None:
            raise Unreadable("video", name, "its codec is unknown", "save it as H.264 in mp4")
        stream.thread_type = "NONE"
        # with this option FFmpeg refuses a larger frame before it allocates memory for it
        stream.codec_context.options = {"max_pixels": str(MAX_PIXELS)}
        if stream.codec_context.width * stream.codec_context.height > MAX_PIXELS:
            raise too_large("video", name)
        return stream
    raise Unreadable("video", name, "it contains no video", _REMEDY)


def _timed_frames(container, stream, name: str) -> Iterator[tuple[float, Callable[..., np.ndarray], int]]:
    """(presentation time in seconds, function that gives the picture, its pixels), in the order of presentation.

    Joined recordings begin again at an earlier time, or go on much later. They follow each other without a gap.
    """
    pace = 1 / float(stream.average_rate or 25)
    longest = JUMP if container.format.name in ("mpegts", "mpeg") else float("inf")
    time, shift, begin = None, 0.0, float("inf")
    for frame in _decode(container, stream, name):
        due = 0.0 if time is None else time + pace
        step = pace if frame.time is None or time is None else frame.time + shift - time
        begin = begin if frame.time is None else min(begin, frame.time)
        # program streams repeat some times; a new recording begins with a key frame and goes back to the begin
        returns = step <= 0 and frame.key_frame and (frame.time <= begin or step < -3 * pace)
        if step > longest or step < -1 or returns:
            shift, begin = due - frame.time, frame.time
        time = due if frame.time is None else frame.time + shift
        yield time, partial(_to_picture, frame), frame.width * frame.height


def _decode(container, stream, name: str) -> Iterator[Any]:
    """All frames. FFmpeg reports no error if the last frame is cut: it marks the frame, or leaves it out."""
    last: Any = None
    rest: list[tuple] = []  # frames of the last packet; an empty packet ends the stream and brings late frames
    for packet in container.demux(stream):
        if packet.size:
            last, rest = packet, []
        for frame in packet.decode():
            if frame.width * frame.height > MAX_PIXELS:  # the size can change within a file
                raise too_large("video", name)
            rest.append((frame.pts, frame.is_corrupt))
            yield frame
    # in other codecs a packet may have no frame of its own
    is_lost = last and stream.codec_context.name in ("mpeg1video", "mpeg2video") and last.pts not in dict(rest)
    if last and (last.is_corrupt or is_lost or any(is_corrupt for _, is_corrupt in rest)):
        raise Unreadable("video", name, *_CUT)


def _to_picture(frame, side: int, preparation: Preparation) -> np.ndarray:
    """One decoded frame to uint8 (side, side, 3), upright."""
    has_alpha = any(component.is_alpha for component in frame.format.components)
    pixels = frame.to_ndarray(format="rgba" if has_alpha else "rgb24")
    if (matrix := frame.side_data.get("DISPLAYMATRIX")) is not None:
        pixels = _upright(pixels, bytes(matrix))
    return prepare_picture(pixels, side, preparation)


def _upright(pixels: np.ndarray, matrix: bytes) -> np.ndarray:
    """Turned and mirrored by a display matrix: a pixel (x, y) is shown at (a x + c y, b x + d y)."""
    a, b, _, c, d = np.frombuffer(matrix, np.int32)[:5].astype(int)
    if abs(b) + abs(c) > abs(a) + abs(d):  # x and y change places
        pixels, a, d = pixels.swapaxes(0, 1), c, b
    return pixels[:: -1 if d < 0 else 1, :: -1 if a < 0 else 1]


# ---- is it a video? --------------------------------------------------------------------------


def is_video(path_or_file: str | os.PathLike | BinaryIO, name: str = "") -> bool:
    """Whether to read the file as a video. The first bytes decide; if they cannot, the extension does.

    An animated GIF, WebP or PNG is a video, one of a single frame is not. name: the name of an open file.
    Never raises: for a file that is missing or unreadable the extension decides, and the error comes when
    the file is read.
    """
    given: Any = path_or_file
    is_open = hasattr(given, "read")
    try:
        with nullcontext(given) if is_open else open_regular(given) as file:
            kind = _kind(file)
    except (OSError, ValueError):
        kind = None
    by_name = (name if is_open else os.fsdecode(given)).lower().endswith(EXTENSIONS)
    return by_name if kind is None else kind != "picture"


def _kind(file) -> str | None:
    """The kind of a file by its first bytes: "video", "animation" or "picture"; None if they do not show it."""
    file.seek(0)
    head = file.read(512)
    kind = _kind_of(head)
    if kind != "animation":
        return kind
    if not _is_animated(file, head):
        return "picture"
    return "video" if head.startswith(b"GIF") else "animation"


def _kind_of(head: bytes) -> str | None:
    """As `_kind`, but "animation" is any picture that can be animated."""
    if head.startswith((b"GIF87a", b"GIF89a", b"\x89PNG")):
        return "animation"
    if head.startswith((b"\xff\xd8\xff", b"BM", b"II*\0", b"MM\0*")):
        return "picture"
    if head[:4] == b"RIFF":
        return {b"AVI ": "video", b"WEBP": "animation" if is_animated_webp(head) else "picture"}.get(head[8:12])
    if head[4:8] == b"ftyp":  # the mp4 family also contains pictures
        return "picture" if head[8:12] in (*HEIC, b"avif") else "video"
    if head[4:8] in (b"moov", b"mdat", b"wide"):  # old QuickTime
        return "video"
    video = (b"\x1aE\xdf\xa3", b"\0\0\1\xba", b"\0\0\1\xb3", b"FLV\1", b"OggS", b"0&\xb2u",
             b"YUV4MPEG2")  # fmt: skip
    return "video" if head.startswith(video) or transport_packet(head) else None


def _is_animated(file, head) -> bool:
    """Whether a picture has several frames. A cut GIF of one frame also has, if it says that it repeats."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            was_cut = is_cut(file)

            def is_animated(image):
                return (was_cut and "loop" in image.info) or getattr(image, "is_animated", False)

            return with_picture(file, "", is_animated)
    except Exception:  # a broken WebP has said that it is animated; a broken picture of another kind is a picture
        return head.startswith(b"RIFF")


# ---- writing ---------------------------------------------------------------------------------


def write_video(path: str | os.PathLike, frames: np.ndarray, fps: float = 1) -> None:
    """Write frames, uint8 (F, H, W, 3), as a video at `fps`. The extension sets the format; mp4 is safe.

    Small frames are enlarged by a whole factor until each side has at least 64 pixels, and an odd size
    gets one more row or column, because encoders need it. Raises `ValueError` for other frames and
    `UserError` if the file cannot be written.
    """
    frames = np.asarray(frames)
    if frames.ndim != 4 or frames.shape[3] != 3 or frames.dtype != np.uint8 or not frames.size:
        raise ValueError(f"frames must be uint8 (F, H, W, 3), not {frames.dtype} {frames.shape}")
    av = _import_av()
    rate = Fraction(fps).limit_denominator(1000)
    try:
        with av.open(os.fsdecode(path), "w") as container:
            _encode(av, container, frames, rate)
    except (av.FFmpegError, OSError, ValueError) as error:
        why = " ".join(str(error).split())
        raise UserError(f"cannot write the video {os.fsdecode(path)!r}: {why}") from None


def _encodable(frame: np.ndarray) -> np.ndarray:
    """The frame with even sides of at least 64 pixels."""
    factor = -(-64 // min(frame.shape[:2]))
    frame = frame.repeat(factor, 0).repeat(factor, 1)
    padding = [(0, length % 2) for length in frame.shape[:2]]
    return np.pad(frame, [*padding, (0, 0)], mode="edge")


def _encode(av, container, frames: np.ndarray, rate: Fraction) -> None:
    # H.264 plays everywhere, but some builds of FFmpeg cannot write it. With one thread the bytes are the same.
    if "libx264" in av.codecs_available:
        stream = container.add_stream("libx264", rate=rate, options={"crf": "12", "threads": "1"})
    else:
        stream = container.add_stream("mpeg4", rate=rate, options={"qscale": "2", "threads": "1"})
        stream.bit_rate = 2_000_000
    stream.pix_fmt = "yuv420p"
    for index, pixels in enumerate(map(_encodable, frames)):
        if index == 0:
            stream.height, stream.width = pixels.shape[:2]
        frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
        frame.pts, frame.time_base = index, 1 / rate
        container.mux(stream.encode(frame))
    container.mux(stream.encode(None))
