"""Files of arrays: round trips with our code and with the library of the format, and all kinds of damage."""

import json

import numpy as np
import pytest

from tinyflamingo import array_files as files
from tinyflamingo.errors import UserError
from tinyflamingo.files import write_atomically


def write(path, arrays):
    write_atomically(path, files.chunks(path.suffix, {n: a.shape for n, a in arrays.items()}, arrays.get))


@pytest.fixture
def arrays(rng):
    a = rng.standard_normal((3, 5)).astype(np.float32)
    return {"a": a, "a transposed": a.T, "strided": a[:, ::2], "scalar": np.float32(2.5).reshape(()), "none": a[:0]}


@pytest.mark.parametrize("ending", files.ENDINGS)
def test_round_trip_of_any_view(tmp_path, arrays, ending):
    write(tmp_path / f"x{ending}", arrays)
    back = files.read_arrays(tmp_path / f"x{ending}")
    assert list(back) == list(arrays)
    for name, array in arrays.items():
        assert back[name].dtype == np.float32
        np.testing.assert_array_equal(back[name], array, err_msg=name)


def test_we_and_the_library_read_each_others_files(tmp_path, arrays):
    library = pytest.importorskip("safetensors.numpy")
    write(tmp_path / "ours.safetensors", arrays)
    for name, array in library.load_file(tmp_path / "ours.safetensors").items():
        np.testing.assert_array_equal(array, arrays[name], err_msg=name)
    theirs = {n: np.ascontiguousarray(a).reshape(a.shape) for n, a in arrays.items()}
    theirs["half"] = np.array([1.5, -2], np.float16)
    library.save_file(theirs, tmp_path / "theirs.safetensors", metadata={"format": "pt"})
    back = files.read_arrays(tmp_path / "theirs.safetensors")
    assert back["half"].dtype == np.float32
    for name, array in theirs.items():
        np.testing.assert_array_equal(back[name], array, err_msg=name)


def test_a_file_is_mapped_not_read(tmp_path, arrays):
    write(tmp_path / "x.safetensors", arrays)
    array = files.read_arrays(tmp_path / "x.safetensors")["a"]
    while array.base is not None and not isinstance(array, np.memmap):
        array = array.base
    assert isinstance(array, np.memmap) and not array.flags.writeable


def header(entries, data=b""):
    text = json.dumps(entries).encode()
    return len(text).to_bytes(8, "little") + text + data


def test_bfloat16_is_widened(tmp_path):
    bits = np.array([0x3FC0, 0xC000], "<u2")  # 1.5, -2
    entry = {"dtype": "BF16", "shape": [2], "data_offsets": [0, 4]}
    (tmp_path / "x.safetensors").write_bytes(header({"x": entry}, bits.tobytes()))
    np.testing.assert_array_equal(files.read_arrays(tmp_path / "x.safetensors")["x"], np.float32([1.5, -2]))


def entry(**changed):
    return {"x": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]} | changed}


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x05",
        (10**9).to_bytes(8, "little") + b"{}",
        header([1]),
        header(entry(), bytes(7)),
        header(entry(data_offsets=[4, 12]), bytes(8)),
        header(entry(data_offsets=[8, 0]), bytes(8)),
        header(entry(data_offsets=[-8, 0]), bytes(8)),
        header(entry(shape=[3]), bytes(8)),
        header(entry(dtype="F8"), bytes(8)),
        header({"x": None}, bytes(8)),
        header(entry(), bytes(8))[:-12] + b"",
    ],
)
def test_damage_is_one_line(tmp_path, data):
    (tmp_path / "x.safetensors").write_bytes(data)
    with pytest.raises(UserError, match="cannot read .*x.safetensors"):
        files.read_arrays(tmp_path / "x.safetensors")


GOOD = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}
ODD = {
    "the shape is a number": GOOD | {"shape": 2},
    "the shape is a text": GOOD | {"shape": "2"},
    "the shape is null": GOOD | {"shape": None},
    "a size is a bool": GOOD | {"shape": [True, 2]},
    "a size is a float": GOOD | {"shape": [2.0]},
    "a size is negative": GOOD | {"shape": [-1]},
    "sizes are negative": GOOD | {"shape": [-1, -2]},
    "a size is enormous": GOOD | {"shape": [10**400, 2]},
    "too many axes": GOOD | {"shape": [1] * 100_000 + [2]},
    "another size": GOOD | {"shape": [3]},
    "no shape": {"dtype": "F32", "data_offsets": [0, 8]},
    "no offsets": {"dtype": "F32", "shape": [2]},
    "no type": {"shape": [2], "data_offsets": [0, 8]},
    "an unknown type": GOOD | {"dtype": "F99"},
    "the type is a list": GOOD | {"dtype": ["F32"]},
    "one offset": GOOD | {"data_offsets": [0]},
    "offsets are floats": GOOD | {"data_offsets": [0.0, 8.0]},
    "an offset is a bool": {"dtype": "U8", "shape": [7], "data_offsets": [True, 8]},
    "offsets are texts": GOOD | {"data_offsets": ["0", "8"]},
    "offsets are negative": GOOD | {"data_offsets": [-8, 0]},
    "offsets are exchanged": GOOD | {"data_offsets": [8, 0]},
    "behind the file": GOOD | {"data_offsets": [16, 24]},
    "the entry is a list": [1],
    "the entry is null": None,
}


@pytest.mark.parametrize("read", [files.read_arrays, files.safetensors_shapes])
@pytest.mark.parametrize("name", ODD)
def test_an_odd_entry_of_a_header_is_one_line(tmp_path, name, read):
    path = tmp_path / "x.safetensors"
    path.write_bytes(header({"b": GOOD, "a": ODD[name]}, bytes(16)))
    with pytest.raises(UserError, match="array 'a' lies outside the file or its description is wrong"):
        read(path)


@pytest.mark.parametrize("read", [files.read_arrays, files.safetensors_shapes])
def test_arrays_that_overlap_are_one_line(tmp_path, read):
    path = tmp_path / "x.safetensors"
    path.write_bytes(header({"a": GOOD, "b": GOOD | {"data_offsets": [4, 12]}}, bytes(16)))
    with pytest.raises(UserError, match="two of its arrays overlap"):
        read(path)


def test_pickles_are_refused(tmp_path):
    (tmp_path / "x.pt").write_bytes(b"anything")
    with pytest.raises(UserError, match="pickle.*safetensors.torch.save_file"):
        files.read_arrays(tmp_path / "x.pt")
    np.savez(tmp_path / "x.npz", x=np.array([{}], object))
    with pytest.raises(UserError, match="cannot read"):
        files.read_arrays(tmp_path / "x.npz")
    with pytest.raises(UserError, match="no such file"):
        files.read_arrays(tmp_path / "y.npz")
    with pytest.raises(UserError, match="not to '.pt'"):
        files.chunks(".pt", {}, None)


def test_a_folder_is_its_files_together(tmp_path, arrays):
    with pytest.raises(UserError, match="no .safetensors or .npz file"):
        files.read_arrays(tmp_path)
    write(tmp_path / "1.safetensors", {"a": arrays["a"]})
    write(tmp_path / "2.npz", {"b": arrays["a"]})
    assert set(files.read_arrays(tmp_path)) == {"a", "b"}
    write(tmp_path / "3.npz", {"b": arrays["a"]})
    with pytest.raises(UserError, match="1 names are in another file too, first b"):
        files.read_arrays(tmp_path)


def test_a_wrong_shape_announced_writes_nothing(tmp_path):
    with pytest.raises(ValueError, match="announced"):
        write_atomically(tmp_path / "x.npz", files.chunks(".npz", {"x": (3,)}, lambda name: np.zeros(2)))
    with pytest.raises(ValueError, match="announced"):
        target = tmp_path / "x.safetensors"
        write_atomically(target, files.chunks(".safetensors", {"x": (3,)}, lambda name: np.zeros(2)))
    assert list(tmp_path.iterdir()) == []
