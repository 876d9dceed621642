"""Omniglot's files: reading, and the refusal of damaged, foreign or hostile files with one line."""

import re
import zipfile

import numpy as np
import pytest
from omniglot_files import make_characters, members_of, png, write_background, write_zip

from tinyflamingo.errors import UserError
from tinyflamingo.handwriting.omniglot import (
    BACKGROUND,
    DRAWERS,
    SIDE,
    make_runs,
    pack_runs,
    read_background,
    read_runs,
)


@pytest.fixture(scope="module")
def alphabets():
    rng = np.random.default_rng(4)
    return {name: make_characters(rng, name, n) for name, n in (("Aleph", 3), ("Beth", 2), ("Gimel", 4))}


@pytest.fixture
def folder(tmp_path, alphabets):
    return write_background(tmp_path, alphabets["Gimel"] + alphabets["Aleph"], alphabets["Beth"] + alphabets["Aleph"])


@pytest.fixture
def runs_zip(tmp_path, alphabets):
    path = tmp_path / "all_runs.zip"
    path.write_bytes(pack_runs(make_runs(np.random.default_rng(5), alphabets["Gimel"], n=2, ways=4)))
    return path


def rewrite(path, change):
    """The same zip with its members {name: bytes} changed by a function."""
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    return write_zip(path, change(members) or members)


def refused(read, path, *parts):
    with pytest.raises(UserError) as caught:
        read(path)
    message = str(caught.value)
    assert "\n" not in message and all(part in message for part in parts), message


# ---- background sets --------------------------------------------------------------------------


def test_every_character_is_read_once_with_its_ink(folder, alphabets):
    characters = read_background(folder)
    expected = alphabets["Aleph"] + alphabets["Beth"] + alphabets["Gimel"]
    assert [(c.alphabet, c.name) for c in characters] == [(c.alphabet, c.name) for c in expected]
    for character, original in zip(characters, expected, strict=True):
        assert character.drawings.shape == (DRAWERS, SIDE, SIDE) and character.drawings.dtype == bool
        np.testing.assert_array_equal(character.drawings, original.drawings)


def test_files_that_macos_adds_are_ignored(folder):
    rewrite(folder / BACKGROUND[0], lambda m: m | {"__MACOSX/x/._a.png": b"?", "x/A/b/._0001_01.png": b"?", "x/": b""})
    assert len(read_background(folder)) == 9


@pytest.mark.parametrize("name", BACKGROUND)
def test_a_missing_file_is_named(folder, name):
    (folder / name).unlink()
    refused(read_background, folder, "cannot find", f"download {name}", "--data")


def test_a_missing_folder_is_refused(tmp_path):
    refused(read_background, tmp_path / "no", "cannot find", f"download {BACKGROUND[0]}")


@pytest.mark.parametrize("keep", [0, 100, -200])
def test_a_file_cut_short_is_refused(folder, keep):
    path = folder / BACKGROUND[1]
    path.write_bytes(path.read_bytes()[:keep])
    refused(read_background, folder, BACKGROUND[1], "damaged", f"download {BACKGROUND[1]} again")


def test_a_flipped_byte_is_noticed(folder):
    path = folder / BACKGROUND[0]
    data = bytearray(path.read_bytes())
    data[120] ^= 0xFF
    path.write_bytes(data)
    refused(read_background, folder, "is damaged", "again")


@pytest.mark.parametrize("name", ["../../evil.png", "/etc/evil.png", "a/../../b/c/0001_01.png", "a\\..\\b.png"])
def test_a_name_that_leads_out_of_the_archive_is_refused(folder, name):
    rewrite(folder / BACKGROUND[0], lambda m: m | {name: png(np.ones((SIDE, SIDE), bool))})
    refused(read_background, folder, "leads out of the archive")


@pytest.mark.parametrize(
    ("member", "data", "message"),
    [
        ("x/Aleph/character01/0001_01.png", b"no picture", "is not a picture"),
        ("x/Aleph/character01/0001_01.png", png(np.ones((40, 40), bool)), "(40, 40) pixels, not (105, 105)"),
        ("x/Aleph/character01/0001_01.png", bytes(200_000), "too many for a drawing"),
        ("x/Aleph/character01/0001_21.png", png(np.ones((SIDE, SIDE), bool)), "is not ALPHABET/CHARACTER"),
        ("x/Aleph/character99/0001_01.png", png(np.ones((SIDE, SIDE), bool)), "has 1 drawings, not 20"),
        ("readme.png", png(np.ones((SIDE, SIDE), bool)), "is not ALPHABET/CHARACTER"),
    ],
)
def test_a_member_that_does_not_belong_is_refused(folder, member, data, message):
    rewrite(folder / BACKGROUND[0], lambda m: m | {member: data})
    refused(read_background, folder, message, BACKGROUND[0])


def test_a_zip_without_drawings_is_refused(folder):
    write_zip(folder / BACKGROUND[0], {"notes.txt": b"hello"})
    refused(read_background, folder, "it holds no drawing")


def test_nothing_is_unpacked(folder):
    before = sorted(folder.rglob("*"))
    read_background(folder)
    assert sorted(folder.rglob("*")) == before


# ---- one-shot runs ----------------------------------------------------------------------------


def test_runs_come_back_as_they_were_packed(alphabets, runs_zip):
    made = make_runs(np.random.default_rng(5), alphabets["Gimel"], n=2, ways=4)
    for original, run in zip(made, read_runs(runs_zip), strict=True):
        assert run.name == original.name
        for field in ("support", "queries", "answers"):
            np.testing.assert_array_equal(getattr(run, field), getattr(original, field))


def test_a_run_is_one_alphabet_by_two_people(alphabets):
    both = alphabets["Aleph"] + alphabets["Gimel"] + alphabets["Beth"]
    runs = make_runs(np.random.default_rng(1), both, n=20, ways=3)
    assert [run.name for run in runs] == [f"run{i:02d}" for i in range(1, 21)]
    for number, run in enumerate(runs):
        alphabet = (alphabets["Aleph"], alphabets["Gimel"])[number % 2]  # Beth is too small
        people = []
        for drawings, order in ((run.support, range(3)), (run.queries, np.argsort(run.answers))):
            where = [
                {(c.name, d) for c in alphabet for d in range(DRAWERS) if (c.drawings[d] == drawings[i]).all()}
                for i in order
            ]
            names, drawers = zip(*(next(iter(w)) for w in where), strict=True)
            assert len(set(names)) == 3 and len(set(drawers)) == 1
            people.append((names, drawers[0]))
        assert people[0][0] == people[1][0] and people[0][1] != people[1][1]
        assert sorted(run.answers) == [0, 1, 2]


def test_without_a_large_alphabet_no_run_can_be_made(alphabets):
    with pytest.raises(ValueError, match="no alphabet has 20"):
        make_runs(np.random.default_rng(0), alphabets["Gimel"])


def test_answers_come_from_the_labels_and_not_from_the_order_of_files(runs_zip):
    def swap(members):
        labels = members["run01/class_labels.txt"].decode().splitlines()
        a, b = (line.split() for line in labels[:2])
        lines = [f"{b[0]} {b[1]}", f"{a[0]}  {a[1]}", *labels[2:], ""]
        return members | {"run01/class_labels.txt": "\r\n".join(lines[:-1]).encode()}

    before = read_runs(runs_zip)[0].answers
    np.testing.assert_array_equal(read_runs(rewrite(runs_zip, swap))[0].answers, before)


def test_runs_can_be_in_a_folder_of_the_zip(runs_zip):
    before = read_runs(runs_zip)
    after = read_runs(rewrite(runs_zip, lambda m: {f"all_runs/{name}": data for name, data in m.items()}))
    assert [r.name for r in after] == [r.name for r in before] == ["run01", "run02"]
    np.testing.assert_array_equal(after[1].answers, before[1].answers)


def without(name):
    return lambda members: {n: d for n, d in members.items() if n != name}


def labels(text):
    return lambda members: members | {"run02/class_labels.txt": text.encode()}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (without("run02/test/item02.png"), "test/item02.png"),
        (without("run01/training/class03.png"), "is not consistent: training/class03.png"),
        (lambda m: m | {"run01/test/more.png": png(np.ones((SIDE, SIDE), bool))}, "test/more.png"),
        (lambda m: m | {"run01/test/item01.png": b"?"}, "is not a picture"),
        (labels(""), "test/item01.png has no file or no label"),
        (labels("run02/test/item01.png"), "not 'test training'"),
        (labels("run02/training/class01.png run02/test/item01.png"), "not 'test training'"),
        (labels("../../x.png run02/training/class01.png"), "not 'test training'"),
        (lambda m: {n: d for n, d in m.items() if not n.endswith(".txt")}, "holds no RUN/class_labels.txt"),
        (lambda m: m | {"../run03/class_labels.txt": b""}, "leads out of the archive"),
    ],
)
def test_runs_that_contradict_themselves_are_refused(runs_zip, change, message):
    refused(read_runs, rewrite(runs_zip, change), message, "all_runs.zip")


def test_a_missing_or_damaged_file_of_runs_is_refused(tmp_path):
    refused(read_runs, tmp_path / "x.zip", "there is no such file")
    (tmp_path / "x.zip").write_bytes(b"PK no")
    refused(read_runs, tmp_path / "x.zip", "damaged or not a zip")
    refused(read_runs, tmp_path, "it is a folder")


def test_the_member_names_are_those_of_the_data_set(alphabets):
    names = members_of(alphabets["Beth"])
    assert all(re.fullmatch(r"images_background_small1/Beth/character0[12]/000[01]_[012]\d\.png", n) for n in names)
