"""Files that lost their end are refused in every container; harmless bytes behind the end and wrong facts are not."""

import io
import struct

import numpy as np
import pytest
from video_files import ANIMATIONS, CONTAINERS, encoded, greys, noise, rate_of, sample

from tinyflamingo.data.cut_files import is_cut
from tinyflamingo.data.video import is_video, load_video
from tinyflamingo.errors import UserError

PACKETS = {"ts": 188, "mpeg2.ts": 188, "mts": 192}  # bytes
TAILS = {
    "zeros": bytes(1000),
    "few letters": b"GARBAGE",
    "noise": np.random.default_rng(1).bytes(3000),
    "ID3 and APE": b"APETAGEX" + bytes(24) + b"TAG" + bytes(125),
}


def load(data, kind):
    """All frames, with a picture of one pixel each."""
    return load_video(io.BytesIO(data), 1, fps=rate_of(kind), max_frames=100)


def load_named(data, kind, folder):
    path = folder / f"a.{kind}"
    path.write_bytes(data)
    return load_video(path, 1, fps=rate_of(kind), max_frames=100)


@pytest.mark.parametrize("kind", [*CONTAINERS, *ANIMATIONS])
def test_a_whole_file_gives_all_frames(kind):
    assert not is_cut(io.BytesIO(sample(kind))) and len(load(sample(kind), kind)) == 20


@pytest.mark.parametrize("share", [10, 23, 30, 50, 90])
@pytest.mark.parametrize("kind", [*CONTAINERS, *ANIMATIONS])
def test_a_cut_file_is_refused(tmp_path, kind, share):
    data = sample(kind)
    length = len(data) * share // 100
    if kind in PACKETS:  # a cut between two frames, so between two packets, leaves no trace
        length += 100 - length % PACKETS[kind]
    with pytest.raises(UserError) as error:
        load_named(data[:length], kind, tmp_path)
    text = str(error.value)
    assert "\n" not in text and "it is damaged or cut short; copy or export it again" in text


@pytest.mark.parametrize("kind", [k for k in CONTAINERS if k != "fragments.mp4"])
def test_a_file_without_its_last_frame_is_refused(tmp_path, kind):
    """Few bytes are missing: the duration differs from that in the header by a few per cent."""
    data = encoded(kind, noise(40))
    with pytest.raises(UserError, match="damaged or cut short"):
        load_named(data[: -len(data) // 100 - 300], kind, tmp_path)


@pytest.mark.parametrize("kind", PACKETS)
def test_a_cut_between_two_packets_of_a_frame_is_refused(kind):
    """The file ends with a whole packet, and the next would go on with the same frame."""
    size, data = PACKETS[kind], sample(kind)
    for end in range(len(data) // size // 2 * size, len(data), size):
        flags = int.from_bytes(data[end + size % 188 + 1 :][:2])  # "a frame begins", and the number of the stream
        if flags & 0x4000 == 0 and 256 <= flags & 0x1FFF < 0x1FFF:
            with pytest.raises(UserError, match="damaged or cut short"):
                load(data[:end], kind)


@pytest.mark.parametrize("tail", TAILS)
@pytest.mark.parametrize("kind", [*(k for k in CONTAINERS if k != "y4m"), *ANIMATIONS])
def test_bytes_behind_the_end_do_no_harm(kind, tail):
    whole = load(sample(kind), kind)
    np.testing.assert_array_equal(load(sample(kind) + TAILS[tail], kind), whole)


# ---- facts in the header ---------------------------------------------------------------------------


def replaced(data, old, new, count=1):
    assert data.count(old) >= count
    return data.replace(old, new)


def test_wrong_durations_of_an_mp4_are_ignored():
    """In moov, trak and mdia: "duration" ten times too long, or 0."""
    data = sample("mp4")
    for factor in (0, 10, 1000):
        changed = bytearray(data)
        for box, at in ((b"mvhd", 20), (b"tkhd", 24), (b"mdhd", 20)):
            place = data.index(box) + at
            (value,) = struct.unpack_from(">I", data, place)
            struct.pack_into(">I", changed, place, value * factor)
        assert len(load(bytes(changed), "mp4")) == 20, factor


@pytest.mark.parametrize("text", [b"N/A", b"", b"99:59:59.000000000", b"-1:00:00", b"1:2", b"nan:nan:nan", b"\xff\xfe"])
@pytest.mark.parametrize("kind", ["mkv", "webm"])
def test_odd_durations_of_matroska_are_ignored(kind, text):
    data = sample(kind)
    place = data.rindex(b"00:00:0")
    old = data[place : data.index(b"0000000", place) + 7]
    assert len(load(replaced(data, old, text[: len(old)].ljust(len(old), b"\0")), kind)) == 20
    at = data.index(b"\x44\x89\x88") + 3  # the duration of the whole file, a float of 64 bits
    for value in (0.0, 1.0, 1e9, float("nan")):
        assert len(load(data[:at] + struct.pack(">d", value) + data[at + 8 :], kind)) == 20


def test_wrong_facts_of_an_avi_are_ignored():
    data = sample("avi")
    for place in (data.index(b"avih") + 8 + 16, data.index(b"strh") + 8 + 32):
        for value in (0, 1, 5000):
            assert len(load(data[:place] + struct.pack("<I", value) + data[place + 4 :], "avi")) == 20
    assert len(load(data[:4] + struct.pack("<I", len(data) + 100) + data[8:], "avi")) == 20


@pytest.mark.parametrize("kind", ["flv", "h264.flv"])
@pytest.mark.parametrize("name, value", [("duration", 0), ("duration", 9999), ("filesize", 0), ("filesize", 10**7)])
def test_one_wrong_fact_of_an_flv_is_ignored(kind, name, value):
    assert len(load(with_fact(sample(kind), name, value), kind)) == 20


def with_fact(data, name, value):
    place = data.index(name.encode() + b"\0") + len(name) + 1
    return data[:place] + struct.pack(">d", value) + data[place + 8 :]


def test_an_flv_that_is_cut_between_two_tags_is_known_by_its_length_and_duration():
    data = sample("flv")
    place, ends = 9, []
    while place + 15 < len(data):
        place += 15 + int.from_bytes(data[place + 5 : place + 8])
        ends.append(place)
    for end in ends[3:-8]:
        assert is_cut(io.BytesIO(data[:end])) and is_cut(io.BytesIO(data[: end + 4]))
        assert not is_cut(io.BytesIO(with_fact(data, "filesize", 0)[: end + 4]))  # nothing shows it


def test_wrong_facts_of_a_wmv_are_ignored():
    data = sample("wmv")
    place = data.index(bytes.fromhex("a1dcab8c47a9cf118ee400c00c205365"))  # file properties
    for at, value in ((40, 10**7), (40, 0), (64, 10**12), (64, 0), (56, 999)):  # bytes, duration, packets
        assert len(load(data[: place + at] + struct.pack("<Q", value) + data[place + at + 8 :], "wmv")) == 20


# ---- GIF --------------------------------------------------------------------------------------------


def test_a_gif_without_its_last_byte_is_cut_and_zeros_between_blocks_are_not_an_end():
    data = sample("gif")
    assert is_cut(io.BytesIO(data[:-1])) and is_cut(io.BytesIO(data[:-1] + bytes(50)))
    assert not is_cut(io.BytesIO(data[:-1] + b"\0\0;"))
    assert is_cut(io.BytesIO(data[: data.index(b";", 2000) + 1]))  # a semicolon inside a picture


def test_a_gif_that_is_cut_after_its_first_frame_is_no_picture(tmp_path):
    data = encoded("gif", greys(3))
    path = tmp_path / "a.gif"
    for end in range(data.index(b"\x2c") + 60, len(data) - 1):
        path.write_bytes(data[:end])
        if is_video(path):
            with pytest.raises(UserError, match="damaged or cut short"):
                load_video(path)
        else:
            assert data[13:end].count(b"\x2c") <= 1
    assert is_video(path)


def test_other_files_are_not_cut():
    for data in (b"", b"G", b"text " * 100, noise(1).tobytes(), b"RIFF\0\0\0\0WEBP", b"\0\0\1\xba", b"OggS", b"FLV\1"):
        is_cut(io.BytesIO(data))  # no error
    assert not is_cut(io.BytesIO(b"text " * 100)) and not is_cut(io.BytesIO(noise(1).tobytes()))
