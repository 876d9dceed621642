"""The state of a run on disk: it is exact, written atomically, and refused if it is damaged."""

import json
import os

import numpy as np
import pytest

from tinyflamingo.errors import UserError
from tinyflamingo.training.figures import draw_run
from tinyflamingo.training.optimiser import AdamW, OptimiserConfig
from tinyflamingo.training.state import LOG, STATE, Log, Progress, load_state, read_log, save_state


@pytest.fixture
def optimiser(rng):
    made = AdamW({"w": rng.standard_normal((3, 4)).astype("f4"), "g": np.ones(2, "f4")}, OptimiserConfig())
    made.step(rng.standard_normal(14).astype("f4"), 0, 9)
    return made


@pytest.fixture
def frozen(rng):
    return {"vision": {"stem": {"w": rng.standard_normal((2, 2)).astype("f4")}}, "scale": np.ones(3, "f4")}


def test_a_state_comes_back_bit_for_bit(tmp_path, optimiser, frozen):
    progress = Progress("smoke", 10**30, 2, 5, 321, {"contrastive": 1.5})
    save_state(tmp_path, progress, frozen, optimiser)
    loaded, tree, moments = load_state(tmp_path)
    assert loaded == progress
    assert tree["vision"]["stem"]["w"].tobytes() == frozen["vision"]["stem"]["w"].tobytes()
    assert list(tree) == ["vision", "scale"]
    for name in ("vector", "m", "v"):
        assert moments[name].tobytes() == getattr(optimiser, name).tobytes()
        assert moments[name].dtype == np.float32
    assert [p.name for p in tmp_path.iterdir()] == [STATE]


def test_between_stages_there_is_no_optimiser(tmp_path, frozen):
    save_state(tmp_path, Progress("smoke", 0, 1), frozen)
    assert load_state(tmp_path)[2] == {}
    save_state(tmp_path, Progress("smoke", 0), {})
    assert load_state(tmp_path)[1:] == ({}, {})


def test_nothing_to_resume(tmp_path):
    for folder in (tmp_path, tmp_path / "missing"):
        with pytest.raises(UserError, match="nothing to resume.*without --resume"):
            load_state(folder)


def test_damage_is_reported_in_one_line(tmp_path, optimiser, frozen, rng):
    """A file cut or changed at any place, another file, a folder: `UserError` or the same state."""
    save_state(tmp_path, Progress("smoke", 3, 1, 2, 0, {}), frozen, optimiser)
    path, whole = tmp_path / STATE, (tmp_path / STATE).read_bytes()
    damaged = [whole[: int(len(whole) * share)] for share in (0, 0.01, 0.1, 0.5, 0.95, 0.999)]
    damaged += [b"not a state", b"PK\x05\x06" + bytes(18), b"\x93NUMPY" + whole[:50]]
    for place in rng.integers(0, len(whole), 150):
        damaged.append(whole[:place] + bytes([whole[place] ^ int(rng.integers(1, 256))]) + whole[place + 1 :])
    refused = 0
    for data in damaged:
        path.write_bytes(data)
        try:
            loaded, tree, moments = load_state(tmp_path)
        except UserError as error:
            assert str(error).startswith(f"cannot resume: {path} is damaged") and "\n" not in str(error)
            refused += 1
        else:  # the byte has no meaning for the state, such as a date
            assert loaded == Progress("smoke", 3, 1, 2, 0, {})
            assert moments["m"].tobytes() == optimiser.m.tobytes()
            assert tree["scale"].tobytes() == frozen["scale"].tobytes()
    assert refused > 100
    path.unlink()
    path.mkdir()
    with pytest.raises(UserError, match="damaged"):
        load_state(tmp_path)


@pytest.mark.parametrize("missing", ["vector", "m", "v", "progress"])
def test_a_state_without_one_of_its_parts_is_damaged(tmp_path, optimiser, missing):
    save_state(tmp_path, Progress("smoke", 3, 1, 2), {}, optimiser)
    with np.load(tmp_path / STATE) as file:
        arrays = {name: file[name] for name in file.files if name != missing}
    np.savez(tmp_path / STATE, **arrays)
    with pytest.raises(UserError, match=f"damaged.*{missing}"):
        load_state(tmp_path)


def test_pickles_are_never_opened(tmp_path):
    np.savez(tmp_path / STATE, progress=np.array([{"preset": "smoke"}], dtype=object))
    with pytest.raises(UserError, match="damaged"):
        load_state(tmp_path)


def test_a_write_that_fails_leaves_the_old_state(tmp_path, optimiser, monkeypatch):
    save_state(tmp_path, Progress("smoke", 3, 0, 2), {}, optimiser)
    before = (tmp_path / STATE).read_bytes()

    def full(*_):
        raise OSError(28, "No space left on device")

    for function in ("fsync", "replace"):
        with monkeypatch.context() as patch:
            patch.setattr(os, function, full)
            with pytest.raises(UserError, match="No space left on device"):
                save_state(tmp_path, Progress("smoke", 3, 0, 4), {}, optimiser)
        assert (tmp_path / STATE).read_bytes() == before
        assert [p.name for p in tmp_path.iterdir()] == [STATE]


# ---- the log ---------------------------------------------------------------------------------


def test_a_log_is_cut_to_the_length_that_the_state_holds(tmp_path):
    log = Log(tmp_path)
    log.write(stage="language", step=0, loss=1.5)
    kept = log.flush()
    log.write(stage="language", step=1, loss=1.0)
    log.close()
    with open(tmp_path / LOG, "ab") as file:
        file.write(b'{"stage": "langu')  # a line cut by the crash
    again = Log(tmp_path, kept)
    again.write(stage="language", step=1, loss=1.25)
    assert again.flush() == (tmp_path / LOG).stat().st_size
    again.close()
    assert [(r["step"], r["loss"]) for r in read_log(tmp_path)] == [(0, 1.5), (1, 1.25)]


RECORDS = [
    {"stage": "flamingo", "step": s, "loss": 1.5, "gates": {"xattn_0/alpha_xattn": 0.5}} for s in range(10, 60, 10)
]
WHOLE = "".join(json.dumps(record) + "\n" for record in RECORDS).encode()
LINE = len(WHOLE) // 5
LOG_DAMAGE = {  # (the bytes of the file, the steps that are kept)
    "missing": (None, []),
    "empty": (b"", []),
    "zeros": (bytes(len(WHOLE)), []),
    "noise": (np.random.default_rng(0).bytes(len(WHOLE)), []),
    "cut between two lines": (WHOLE[: 2 * LINE], [10, 20]),
    "last line torn": (WHOLE[:-5], [10, 20, 30, 40]),
    "last newline lost": (WHOLE[:-1], [10, 20, 30, 40]),
    "begins with zeros": (bytes(5) + WHOLE[5:], [20, 30, 40, 50]),
    "a line and its newline zeroed": (WHOLE[:LINE] + bytes(LINE) + WHOLE[2 * LINE :], [10, 40, 50]),
    "other JSON": (b'5\n[]\n{}\nnull\n"x"\n{"stage": 5, "step": "a", "loss": []}\n' + bytes(len(WHOLE)), []),
    "deep JSON": (b"[" * len(WHOLE), []),
}


@pytest.mark.parametrize("name", LOG_DAMAGE)
def test_a_damaged_log_keeps_its_whole_lines_and_says_so_once(tmp_path, name, capsys):
    data, steps = LOG_DAMAGE[name]
    if data is not None:
        (tmp_path / LOG).write_bytes(data)
    log = Log(tmp_path, len(WHOLE))
    line = capsys.readouterr().err
    assert line.count("\n") == 1 and f"of its {len(WHOLE)} bytes are lost" in line
    log.write(stage="flamingo", step=60, loss=1.0)
    assert log.flush() == (tmp_path / LOG).stat().st_size
    log.close()
    assert [record["step"] for record in read_log(tmp_path)] == [*steps, 60]
    Log(tmp_path, (tmp_path / LOG).stat().st_size).close()
    assert capsys.readouterr().err == ""  # the log is whole again


def test_a_byte_changed_anywhere_in_a_log_never_stops_a_run(tmp_path, rng):
    for place in range(0, len(WHOLE), 3):
        data = bytearray(WHOLE)
        data[place] = rng.integers(256)
        (tmp_path / LOG).write_bytes(data)
        Log(tmp_path, len(WHOLE)).close()
        draw_run(tmp_path) if place % 60 == 0 else read_log(tmp_path)


def test_a_whole_log_is_kept_without_a_word(tmp_path, capsys):
    (tmp_path / LOG).write_bytes(WHOLE + b'{"stage": "fla')
    log = Log(tmp_path, len(WHOLE))
    assert log.flush() == len(WHOLE)  # also if nothing is added
    log.close()
    assert (tmp_path / LOG).read_bytes() == WHOLE and capsys.readouterr().err == ""


def test_a_log_that_cannot_be_written_is_refused(tmp_path):
    (tmp_path / LOG).mkdir()
    with pytest.raises(UserError, match="cannot write"):
        Log(tmp_path)
