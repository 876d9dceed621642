"""The user's videos: the right frames at the right times, each error is one clear line."""

import io
import struct
import subprocess
import sys
import zlib
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from video_files import animation, encoded, greys, rate_of

from tinyflamingo.data import video
from tinyflamingo.data.images import load_picture
from tinyflamingo.data.video import is_video, load_video, write_video
from tinyflamingo.errors import UserError

av = pytest.importorskip("av")

SECONDS = np.array(  # a colour for each second
    [(230, 20, 20), (20, 200, 20), (20, 20, 230), (230, 220, 20), (20, 210, 220), (220, 30, 210)],
    np.uint8,
)


def plain(colours, side=64):
    """Frames of one colour each."""
    return np.broadcast_to(np.asarray(colours, np.uint8)[:, None, None], (len(colours), side, side, 3))


def colours_of(frames):
    assert frames.dtype == np.uint8 and frames.ndim == 4
    return frames.astype(int).mean((1, 2))


def assert_colours(frames, expected, atol=14):
    assert len(frames) == len(expected)
    np.testing.assert_allclose(colours_of(frames), np.asarray(expected), atol=atol)


def write_timed(path, frames, times, codec="libx264", pix_fmt="yuv420p", **options):
    """Write a video of frames (F, 64, 64, 3) or plain colours (F, 3). times: seconds, in steps of 1/100."""
    if codec not in av.codecs_available:
        pytest.skip(f"this FFmpeg cannot write {codec}")
    with av.open(str(path), "w", options=options) as container:
        stream = container.add_stream(codec, rate=100)
        stream.width = stream.height = 64
        stream.pix_fmt = pix_fmt
        stream.codec_context.time_base = Fraction(1, 100)
        frames = plain(frames) if np.ndim(frames) == 2 else frames
        for pixels, time in zip(frames, times, strict=True):
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels), format="rgb24")
            frame.pts, frame.time_base = round(time * 100), Fraction(1, 100)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


def cut(path, share, name="cut"):
    data = path.read_bytes()
    shorter = path.with_name(f"{name}{path.suffix}")
    shorter.write_bytes(data[: int(len(data) * share)])
    return shorter


def fails(path, *words, **options):
    with pytest.raises(UserError) as error:
        load_video(path, **options)
    text = str(error.value)
    assert "\n" not in text
    for word in ("cannot read the video", path.name, ";", *words):
        assert word in text


# ---- a long video ----------------------------------------------------------------------------

MEASURE = """
import resource, sys
from tinyflamingo.data.video import load_video
load_video(sys.argv[1], 32, fps=0.05)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
frames = load_video(sys.argv[2], 32, fps=0.05)
print(len(frames), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


@pytest.mark.posix
def test_a_long_video_needs_memory_for_the_sampled_frames_only(tmp_path):
    """All decoded frames would fill 130 MB. The 30 sampled frames fill 90 KB."""
    for name, seconds in (("short.mp4", 5), ("long.mp4", 600)):
        with av.open(str(tmp_path / name), "w") as container:
            stream = container.add_stream("libx264", rate=3, options={"preset": "ultrafast", "threads": "1"})
            stream.width, stream.height, stream.pix_fmt = 240, 160, "yuv420p"
            for i in range(3 * seconds):
                pixels = np.full((160, 240, 3), i % 256, np.uint8)
                container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
            container.mux(stream.encode(None))
    line = [sys.executable, "-c", MEASURE, tmp_path / "short.mp4", tmp_path / "long.mp4"]
    done = subprocess.run(line, capture_output=True, text=True, check=True, cwd=Path(__file__).parent.parent.parent)
    frames, grown = map(int, done.stdout.split())
    assert frames == 30 and grown < 20_000  # kilobytes


# ---- timing ----------------------------------------------------------------------------------


@pytest.mark.parametrize("rate", [1, 2, 8, 25, Fraction(30000, 1001)])
def test_one_frame_per_second_has_the_colour_of_that_second(tmp_path, rate):
    path = tmp_path / "a.mp4"
    times = np.arange(int(len(SECONDS) * rate)) / float(rate)
    seconds = np.floor(times + 1e-9).astype(int)
    write_video(path, plain(SECONDS[seconds]), rate)
    frames = load_video(path)
    assert frames.shape == (len(SECONDS), 32, 32, 3)
    assert_colours(frames, SECONDS)


@pytest.mark.parametrize("fps", [0.5, 1, 2, 3, 4, 6, 12])
def test_other_rates_take_the_first_frame_at_or_after_each_time(tmp_path, fps):
    path, rate = tmp_path / "a.mp4", 12
    levels = np.arange(24) * 10
    write_video(path, plain(np.stack([levels] * 3, 1)), rate)
    frames = load_video(path, fps=fps)
    due = np.arange(0, 24, rate / fps).astype(int)
    assert_colours(frames, levels[due][:, None].repeat(3, 1), atol=4)


@pytest.mark.parametrize("suffix, codec", [("mp4", "libx264"), ("mkv", "libx264"), ("webm", "libvpx-vp9")])
def test_a_variable_frame_rate_uses_presentation_times(tmp_path, suffix, codec):
    path = tmp_path / f"a.{suffix}"
    # many frames in second 0, none between 1.2 and 3.4
    times = [0, 0.1, 0.2, 0.3, 0.9, 1.0, 1.2, 3.4, 3.9, 4.0]
    colours = SECONDS[[0, 1, 1, 1, 1, 2, 1, 3, 1, 4]]
    write_timed(path, colours, times, codec)
    # at 2 and 3 seconds the next frame is the one at 3.4
    assert_colours(load_video(path), SECONDS[[0, 2, 3, 3, 4]])


@pytest.mark.parametrize("suffix, codec", [("mkv", "libx264"), ("ts", "libx264"), ("avi", "mpeg4")])
def test_other_containers(tmp_path, suffix, codec):
    path = tmp_path / f"a.{suffix}"
    write_timed(path, SECONDS.repeat(4, 0), np.arange(24) / 4, codec)
    assert_colours(load_video(path), SECONDS, atol=20)


def test_time_counts_from_the_first_frame(tmp_path):
    path = tmp_path / "late.mkv"
    write_timed(path, SECONDS[:3], [5, 6, 7])
    assert_colours(load_video(path), SECONDS[:3])


def test_a_single_frame_is_a_video(tmp_path):
    write_video(tmp_path / "a.mp4", plain(SECONDS[:1]))
    assert_colours(load_video(tmp_path / "a.mp4"), SECONDS[:1])


def test_same_file_same_bits(tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, (5, 64, 96, 3), dtype=np.uint8)
    write_video(tmp_path / "a.mp4", noise)
    write_video(tmp_path / "b.mp4", noise)
    assert (tmp_path / "a.mp4").read_bytes() == (tmp_path / "b.mp4").read_bytes()
    np.testing.assert_array_equal(load_video(tmp_path / "a.mp4"), load_video(tmp_path / "a.mp4"))


# ---- pictures --------------------------------------------------------------------------------


def halves(height, width):
    """Red on the left, blue on the right, a white bar at the top."""
    frame = np.zeros((height, width, 3), np.uint8)
    frame[:, : width // 2], frame[:, width // 2 :] = (230, 20, 20), (20, 20, 230)
    frame[: height // 8] = 255
    return frame


def test_frames_keep_their_aspect_and_orientation(tmp_path):
    write_video(tmp_path / "a.mp4", halves(64, 128)[None])
    picture = load_video(tmp_path / "a.mp4")[0].astype(int)
    np.testing.assert_allclose(picture[16, 4], (230, 20, 20), atol=14)
    np.testing.assert_allclose(picture[16, 28], (20, 20, 230), atol=14)
    np.testing.assert_allclose(picture[8, 4], 255, atol=14)
    np.testing.assert_allclose(picture[2], np.tile(picture[30, 0], (32, 1)), atol=1)  # the margin


def fixed(*values):
    return b"".join(int(v * 65536).to_bytes(4, "big", signed=True) for v in values)


# ((a, b), (c, d)) of the display matrix: what FFmpeg and players show for the stored frame
ORIENTATIONS = {
    "as stored": ((1, 0, 0, 1), lambda f: f),
    "mirrored": ((-1, 0, 0, 1), lambda f: f[:, ::-1]),
    "flipped": ((1, 0, 0, -1), lambda f: f[::-1]),
    "half a turn": ((-1, 0, 0, -1), lambda f: f[::-1, ::-1]),
    "a quarter to the right": ((0, 1, -1, 0), lambda f: np.rot90(f, -1)),
    "a quarter to the left": ((0, -1, 1, 0), lambda f: np.rot90(f)),
    "along the diagonal": ((0, 1, 1, 0), lambda f: f.swapaxes(0, 1)),
    "along the other diagonal": ((0, -1, -1, 0), lambda f: np.rot90(f, 2).swapaxes(0, 1)),
}


def display_matrix(a, b, c, d):
    return fixed(a, b, 0, c, d, 0, 0, 0) + (1 << 30).to_bytes(4)


def assert_oriented(data, orientation):
    shown = load_video(io.BytesIO(data))[0].astype(int)
    wanted = video.prepare_picture(ORIENTATIONS[orientation][1](halves(64, 128)))
    assert np.abs(shown - wanted).mean() < 8  # another orientation differs by 40 and more


@pytest.mark.parametrize("name", ORIENTATIONS)
@pytest.mark.parametrize("suffix", ["mp4", "mov"])
def test_all_orientations_of_a_phone(tmp_path, suffix, name):
    """The frames are stored turned, and a matrix in the header tells how to show them."""
    path = tmp_path / f"a.{suffix}"
    write_video(path, halves(64, 128)[None])
    data, plain = path.read_bytes(), display_matrix(1, 0, 0, 1)
    place = data.index(plain, data.index(b"tkhd"))
    assert_oriented(data[:place] + display_matrix(*ORIENTATIONS[name][0]) + data[place + 36 :], name)


@pytest.mark.parametrize("name", ORIENTATIONS)
def test_all_orientations_in_matroska(name):
    if not hasattr(av.video.stream.VideoStream, "set_display_matrix"):
        pytest.skip("this PyAV cannot write a display matrix")
    a, b, c, d = (int(value * 65536) for value in ORIENTATIONS[name][0])
    matrix = [a, b, 0, c, d, 0, 0, 0, 1 << 30]
    assert_oriented(encoded("mkv", halves(64, 128)[None], lambda stream: stream.set_display_matrix(matrix)), name)


@pytest.mark.parametrize("kind", ["ts", "mts", "h264.mpg"])
@pytest.mark.parametrize("options, name", [
    ("rotate=0:flip=horizontal", "mirrored"), ("rotate=0:flip=vertical", "flipped"),
    ("rotate=180", "half a turn"), ("rotate=90", "a quarter to the left"), ("rotate=270", "a quarter to the right"),
])  # fmt: skip
def test_orientations_inside_a_stream(kind, options, name):
    """H.264 can hold the orientation itself, in any container."""
    data = encoded(kind, halves(64, 128)[None], filtered=f"h264_metadata=display_orientation=insert:{options}")
    assert_oriented(data, name)


@pytest.mark.parametrize("kind", ["webp", "apng"])
@pytest.mark.parametrize("number, name", list(enumerate(
    ["as stored", "mirrored", "half a turn", "flipped", "along the diagonal", "a quarter to the right",
     "along the other diagonal", "a quarter to the left"], 1,
)))  # fmt: skip
def test_orientations_of_animations(kind, number, name):
    exif = Image.Exif()
    exif[0x0112] = number
    assert_oriented(animation(kind, np.stack([halves(64, 128)] * 2 + [halves(64, 128) // 2]), exif=exif), name)


# ---- joined recordings -----------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["mpg", "vob"])
def test_times_that_repeat_do_not_add_up(kind):
    """A program stream repeats some times. Each sample is the third frame of its second: one frame does not matter."""
    frames = greys(31, step=8).repeat(25, 0)[2:]
    data = encoded(kind, frames, prepare=lambda stream: setattr(stream.codec_context, "gop_size", 1))
    shown = load_video(io.BytesIO(data), 8, fps=rate_of(kind) / 25, max_frames=40)
    np.testing.assert_allclose(shown.mean((1, 2, 3)), 8 * np.arange(31), atol=3)


@pytest.mark.parametrize("kind", ["ts", "mpeg2.ts", "mts", "mpg", "vob", "h264.mpg"])
@pytest.mark.parametrize("count", [1, 2, 3])
def test_joined_recordings_give_all_frames(kind, count):
    """Each part begins again at the same time. A part has one, two or three seconds."""
    rate = rate_of(kind)
    first, second = (encoded(kind, greys(count, first, 60).repeat(rate, 0)) for first in (10, 40))
    for parts, levels in (((first, second), (10, 40)), ((second, first, first), (40, 10, 10))):
        frames = load_video(io.BytesIO(b"".join(parts)))
        wanted = np.concatenate([level + 60 * np.arange(count) for level in levels])
        np.testing.assert_allclose(frames.mean((1, 2, 3)), wanted, atol=6)


@pytest.mark.parametrize("kind, length", [(k, n) for k in ("ts", "mts", "mpg", "vob") for n in (2, 5, 12)])
def test_no_frame_of_joined_recordings_is_lost(kind, length):
    parts = encoded(kind, greys(length, 10)) + encoded(kind, greys(length, 20))
    frames = load_video(io.BytesIO(parts), fps=rate_of(kind))
    np.testing.assert_allclose(
        frames.mean((1, 2, 3)), [10 + 12 * i + k for k in (0, 10) for i in range(length)], atol=6
    )


def test_an_ogg_of_several_recordings_has_its_name():
    """FFmpeg decodes the first and takes the heads of the second for damage."""
    parts = [encoded("ogv", greys(3, first)) for first in (10, 40)]
    assert len(load_video(io.BytesIO(parts[0]))) > 0
    with pytest.raises(UserError, match="it is several Ogg videos"):
        load_video(io.BytesIO(b"".join(parts)))


def test_a_container_ends_after_many_bytes_without_a_frame(tmp_path):
    """FFmpeg would search all of a file with a hole, which takes no room on the disk."""
    for head in (b"FLV\1\5\0\0\0\x09", b"GIF89a\x0a\0\x0a\0\0\0\0"):
        with open(tmp_path / "a.flv", "wb") as file:
            file.write(head)
            file.truncate(100 << 30)
        with pytest.raises(UserError, match="cannot read the video"):
            load_video(tmp_path / "a.flv")


@pytest.mark.parametrize("later", [100, 40_000, -30])
def test_a_recording_that_goes_on_much_later_or_earlier_has_no_gap(tmp_path, later):
    for name, first, times in (("a.ts", 0, np.arange(30) / 10), ("b.ts", 3, np.arange(30) / 10 + later)):
        write_timed(tmp_path / name, SECONDS[first : first + 3].repeat(10, 0), times + 50)
    (tmp_path / "c.ts").write_bytes((tmp_path / "a.ts").read_bytes() + (tmp_path / "b.ts").read_bytes())
    assert_colours(load_video(tmp_path / "c.ts"), SECONDS, atol=20)


def test_a_long_pause_inside_another_container_stays(tmp_path):
    write_timed(tmp_path / "a.mkv", SECONDS[:2], [0, 15])
    assert_colours(load_video(tmp_path / "a.mkv"), SECONDS[[0, *[1] * 15]])


# ---- animated pictures -----------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["webp", "apng", "gif"])
def test_animations_are_videos_with_their_own_delays(tmp_path, kind):
    path = tmp_path / f"a.{kind}"
    path.write_bytes(animation(kind, plain(SECONDS[:4]), duration=[1000, 500, 500, 1000]))
    assert is_video(path) and is_video(io.BytesIO(path.read_bytes()))
    assert_colours(load_video(path), SECONDS[[0, 1, 3]], atol=8)
    path.write_bytes(animation(kind, plain(SECONDS[:1])))
    assert not is_video(path)


def test_a_png_with_a_picture_apart_from_its_animation(tmp_path):
    data = animation("apng", plain(SECONDS[:4]), duration=1000, default_image=True)
    assert_colours(load_video(io.BytesIO(data)), SECONDS[1:4], atol=2)


def test_transparent_parts_of_an_animated_webp_are_white():
    frames = [Image.new("RGBA", (32, 32), (0, 0, 0, 0)) for _ in range(2)]
    for frame, colour in zip(frames, ((255, 0, 0, 255), (0, 0, 255, 255)), strict=True):
        frame.paste(colour, (0, 0, 16, 32))
        frame.paste(colour, (30, 30, 32, 32))  # without this corner, the encoder would cut off the transparent half
    target = io.BytesIO()
    frames[0].save(target, "webp", save_all=True, append_images=frames[1:], duration=1000, lossless=True)
    shown = load_video(target)
    assert shown[:, 5, 5].tolist() == [[255, 0, 0], [0, 0, 255]] and (shown[:, 5, 25] == 255).all()


def test_margins_of_an_animated_webp_are_white():
    """The encoder cuts off transparent margins. The file then says that it has no opacity."""
    frames = [Image.new("RGBA", (32, 32), (0, 0, 0, 0)) for _ in range(2)]
    for frame, colour in zip(frames, ((255, 0, 0, 255), (0, 0, 255, 255)), strict=True):
        frame.paste(colour, (0, 0, 16, 32))
    target = io.BytesIO()
    frames[0].save(target, "webp", save_all=True, append_images=frames[1:], duration=1000, lossless=True)
    data = target.getvalue()
    assert data[12:16] == b"VP8X"
    data = data[:20] + bytes([data[20] & ~16]) + data[21:]
    shown = load_video(io.BytesIO(data))
    assert shown[:, 5, 5].tolist() == [[255, 0, 0], [0, 0, 255]] and (shown[:, 5, 25] == 255).all()
    np.testing.assert_array_equal(load_picture(io.BytesIO(data)), shown[0])


def test_an_animated_png_with_a_large_text():
    short = animation("apng", plain(SECONDS[:2]), duration=1000)
    data = b"a\0\0" + zlib.compress(bytes(80 << 20))
    text = struct.pack(">I", len(data)) + b"zTXt" + data + struct.pack(">I", zlib.crc32(b"zTXt" + data))
    for whole in (short[:33] + text + short[33:], short[:-12] + text + short[-12:]):
        assert is_video(io.BytesIO(whole))
        assert_colours(load_video(io.BytesIO(whole)), SECONDS[:2], atol=2)


@pytest.mark.parametrize("kind", ["webp", "apng"])
def test_limits_on_animations(tmp_path, monkeypatch, kind):
    path = tmp_path / f"a.{kind}"
    path.write_bytes(animation(kind, plain(np.arange(120).reshape(40, 3), 16), duration=1000))
    fails(path, "more than 32 frames")
    fails(path, "longer than 10 seconds", max_seconds=10)
    monkeypatch.setattr(video, "MAX_PIXELS", 16 * 16 - 1)
    fails(path, "million pixels")


def test_an_animated_gif_has_its_own_delays(tmp_path):
    path = tmp_path / "a.gif"
    frames = [Image.fromarray(f) for f in plain(SECONDS[:4])]
    frames[0].save(path, save_all=True, append_images=frames[1:], duration=[1000, 500, 500, 1000])
    assert is_video(path)
    assert_colours(load_video(path), SECONDS[[0, 1, 3]], atol=2)


def test_transparent_parts_of_a_gif_are_white(tmp_path):
    first, second = (Image.new("RGBA", (32, 32), (0, 0, 0, 0)) for _ in range(2))
    first.paste((255, 0, 0, 255), (0, 0, 16, 32))
    second.paste((0, 0, 255, 255), (0, 0, 16, 32))
    first.save(tmp_path / "a.gif", save_all=True, append_images=[second], duration=1000, disposal=2)
    frames = load_video(tmp_path / "a.gif")
    assert frames[:, 5, 5].tolist() == [[255, 0, 0], [0, 0, 255]]
    assert (frames[:, 5, 28] == 255).all()


# ---- limits ----------------------------------------------------------------------------------


def test_limits_on_frames_and_seconds(tmp_path):
    path = tmp_path / "a.mp4"
    write_video(path, plain(SECONDS.repeat(6, 0)))
    fails(path, "more than 32 frames", "cut it shorter")
    assert load_video(path, max_frames=36).shape[0] == 36
    assert load_video(path, fps=0.5).shape[0] == 18
    fails(path, "longer than 20 seconds", max_seconds=20)


def test_a_long_video_can_be_shortened(tmp_path):
    levels = 5 * np.arange(40)
    write_video(tmp_path / "a.mp4", plain(np.stack([levels] * 3, 1)))
    frames = load_video(tmp_path / "a.mp4", shorten=True, max_seconds=36)
    assert_colours(frames, np.stack([levels[:32]] * 3, 1))
    assert_colours(load_video(tmp_path / "a.mp4", max_frames=40), np.stack([levels] * 3, 1))
    fails(cut(tmp_path / "a.mp4", 0.9), shorten=True)


def test_seconds_are_limited_also_without_a_length_in_the_header(tmp_path):
    path = tmp_path / "a.ts"
    write_timed(path, SECONDS, np.arange(6) * 4)
    fails(path, "longer than 10 seconds", max_seconds=10, fps=0.1)


def test_too_large_frames_are_refused(tmp_path, monkeypatch):
    write_video(tmp_path / "a.mp4", plain(SECONDS[:2], 128))
    monkeypatch.setattr(video, "MAX_PIXELS", 128 * 128 - 1)
    fails(tmp_path / "a.mp4", "million pixels")


def test_too_many_frames_in_a_file_are_refused(tmp_path, monkeypatch):
    write_video(tmp_path / "a.mp4", plain(SECONDS), 6)
    monkeypatch.setattr(video, "MAX_DECODED", 5)
    fails(tmp_path / "a.mp4", "more than 5 frames")


@pytest.mark.parametrize("fps", [0, -1, float("nan"), float("inf")])
def test_impossible_rates(tmp_path, fps):
    with pytest.raises(UserError, match="frames per second"):
        load_video(tmp_path / "a.mp4", fps=fps)


# ---- failures --------------------------------------------------------------------------------


def test_missing_folder_empty_text_and_noise(tmp_path):
    fails(tmp_path / "none.mp4", "no such file")
    fails(tmp_path, "folder")
    (tmp_path / "empty.mp4").touch()
    fails(tmp_path / "empty.mp4", "empty")
    (tmp_path / "text.txt").write_text("no video\n" * 100)
    fails(tmp_path / "text.txt", "not a video", "mp4")
    for seed in range(5):
        (tmp_path / "noise.mp4").write_bytes(np.random.default_rng(seed).bytes(40000))
        fails(tmp_path / "noise.mp4")


@pytest.mark.parametrize("share", [0.02, 0.1, 0.5, 0.95])
@pytest.mark.parametrize("suffix, codec, pix_fmt, rate, options", [
    ("mp4", "libx264", "yuv420p", 10, {}),
    ("mp4", "libx264", "yuv420p", 10, {"movflags": "faststart"}),  # the index comes first
    ("mkv", "libx264", "yuv420p", 10, {}),
    ("webm", "libvpx-vp9", "yuv420p", 10, {}),
    ("avi", "mpeg4", "yuv420p", 100, {}),  # at its own rate, because it fills gaps with index entries
    ("gif", "gif", "rgb8", 10, {}),
])  # fmt: skip
def test_cut_files_are_noticed(tmp_path, suffix, codec, pix_fmt, rate, options, share):
    path = tmp_path / f"a.{suffix}"
    noise = np.random.default_rng(0).integers(0, 256, (60, 64, 64, 3), dtype=np.uint8)
    write_timed(path, noise, np.arange(60) / rate, codec, pix_fmt, **options)
    assert len(load_video(path, fps=rate / 10)) == 6
    fails(cut(path, share))


def test_a_header_with_an_impossible_position_prints_nothing(tmp_path, capfd):
    path = tmp_path / "a.wmv"
    write_video(path, plain(SECONDS))
    data = bytearray(path.read_bytes())
    data[302] = 0x26  # with it, FFmpeg seeks to a negative position
    path.write_bytes(data)
    fails(path, "damaged or cut short")
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("seed", range(20))
def test_flipped_bytes_never_give_another_error(tmp_path, seed):
    rng = np.random.default_rng(seed)
    path = tmp_path / ("a.mp4" if seed % 2 else "a.mkv")
    write_video(path, plain(SECONDS), 2)
    data = bytearray(path.read_bytes())
    for position in rng.integers(0, len(data), 30):
        data[position] = rng.integers(0, 256)
    path.write_bytes(bytes(data))
    try:
        assert load_video(path).shape[1:] == (32, 32, 3)
    except UserError as error:
        assert "\n" not in str(error)


def test_sound_alone_is_not_a_video(tmp_path):
    path = tmp_path / "sound.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=8000)
        tone = np.zeros((1, 8000), np.float32)
        frame = av.AudioFrame.from_ndarray(tone, format="fltp", layout="mono")
        frame.rate = 8000
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    fails(path, "no video")


@pytest.mark.parametrize("suffix", ["mkv", "mp4", "avi"])
def test_no_frames(tmp_path, suffix):
    path = tmp_path / f"none.{suffix}"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=1)
        stream.width = stream.height = 64
        container.start_encoding()
    fails(path)


def test_a_playlist_opens_no_other_file(tmp_path):
    write_timed(tmp_path / "a.ts", SECONDS, np.arange(6))
    playlist = "#EXTM3U\n#EXT-X-TARGETDURATION:6\n#EXTINF:6,\na.ts\n#EXT-X-ENDLIST\n"
    for name in ("a.m3u8", "renamed.mp4"):
        (tmp_path / name).write_text(playlist)
        fails(tmp_path / name)
    (tmp_path / "list.mp4").write_text("ffconcat version 1.0\nfile a.ts\n")
    fails(tmp_path / "list.mp4")


# ---- is_video and write_video ----------------------------------------------------------------


@pytest.mark.parametrize("suffix, codec, pix_fmt", [
    ("mp4", "libx264", "yuv420p"), ("mov", "libx264", "yuv420p"), ("mkv", "libx264", "yuv420p"),
    ("webm", "libvpx-vp9", "yuv420p"), ("avi", "mpeg4", "yuv420p"), ("ts", "libx264", "yuv420p"),
    ("flv", "flv", "yuv420p"), ("gif", "gif", "rgb8"),
])  # fmt: skip
def test_the_content_decides_what_is_a_video(tmp_path, suffix, codec, pix_fmt):
    path = tmp_path / f"a.{suffix}"
    write_timed(path, SECONDS, np.arange(6) / 10, codec, pix_fmt)
    assert is_video(path)
    assert is_video(path.rename(tmp_path / "renamed.png"))


@pytest.mark.parametrize("suffix", ["png", "jpg", "gif", "webp", "bmp", "tiff", "avif", "ppm"])
def test_pictures_are_not_videos(tmp_path, suffix):
    path = tmp_path / f"a.{suffix}"
    try:
        Image.new("RGB", (32, 32), "red").save(path)
    except (KeyError, OSError):
        pytest.skip(f"this Pillow cannot write {suffix}")
    assert not is_video(path)
    if suffix != "ppm":  # its two first letters are not enough to be sure
        assert not is_video(path.rename(tmp_path / "renamed.mp4"))


def test_the_extension_decides_if_the_content_cannot(tmp_path):
    (tmp_path / "noise.MP4").write_bytes(bytes(range(100)))
    (tmp_path / "noise.png").write_bytes(bytes(range(100)))
    assert is_video(tmp_path / "noise.MP4") and not is_video(tmp_path / "noise.png")
    assert is_video(tmp_path / "missing.mov") and not is_video(tmp_path / "missing.jpg")
    assert not is_video(tmp_path) and not is_video("a\0b")


@pytest.mark.parametrize("height, width", [(64, 64), (32, 32), (1, 1), (33, 70), (65, 131)])
def test_write_video_takes_any_size(tmp_path, height, width):
    frames = np.broadcast_to(SECONDS[:3, None, None], (3, height, width, 3))
    write_video(tmp_path / "a.mp4", frames)
    with av.open(str(tmp_path / "a.mp4")) as container:
        stream = container.streams.video[0]
        assert min(stream.width, stream.height) >= 64
        assert stream.width % 2 == stream.height % 2 == 0
    assert_colours(load_video(tmp_path / "a.mp4"), SECONDS[:3])


def test_write_video_without_x264(tmp_path, monkeypatch):
    monkeypatch.setattr(av, "codecs_available", {"mpeg4"})
    write_video(tmp_path / "a.mp4", plain(SECONDS), 2)
    assert_colours(load_video(tmp_path / "a.mp4", fps=2), SECONDS, atol=20)


def test_write_video_mistakes(tmp_path):
    for wrong in (
        np.zeros((0, 8, 8, 3), np.uint8),
        np.zeros((8, 8, 3), np.uint8),
        plain(SECONDS) / 255,
    ):
        with pytest.raises(ValueError, match="uint8"):
            write_video(tmp_path / "a.mp4", wrong)
    with pytest.raises(UserError, match="cannot write the video"):
        write_video(tmp_path / "none" / "a.mp4", plain(SECONDS))


def test_the_pixels_of_all_frames_have_a_limit(tmp_path):
    """10 KB of GIF: 400 frames of 4900 x 4900, of which each changes one pixel."""
    frame = b"!\xf9\x04\0\1\0\0\0," + struct.pack("<HHHH", 0, 0, 1, 1) + b"\0\x02\x02D\x01\0"
    head = b"GIF89a" + struct.pack("<HH", 4900, 4900) + b"\xf0\0\0" + bytes(6)
    path = tmp_path / "bomb.gif"
    path.write_bytes(head + frame * 400 + b";")
    with pytest.raises(UserError, match="its frames have too many pixels"):
        load_video(path)


def test_the_page_about_own_data_lists_all_extensions_of_videos():
    page = (Path(__file__).parents[2] / "docs/own_data.md").read_text(encoding="utf-8")
    listed = page.partition("Videos are ")[2].partition(" and animated GIF")[0]
    assert tuple(sorted(listed.replace(",", " ").split())) == tuple(sorted(video.EXTENSIONS))
