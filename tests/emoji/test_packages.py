"""The packages of emoji: what counts as a concept, which are asked, and files that are not as they should be."""

import io
import tarfile

import numpy as np
import pytest
from emoji_files import FILES, LEFT_OUT, codes_of, drawing, members_of, write_packages, write_tgz

from tinyflamingo.data.images import prepare_picture
from tinyflamingo.emoji import packages
from tinyflamingo.emoji.packages import FLUENT, NAMES, NOTO, TAUGHT, TWEMOJI, family, read_concepts, split
from tinyflamingo.errors import UserError


@pytest.fixture
def folder(tmp_path):
    """Packages that a test may change."""
    return write_packages(tmp_path)


def test_a_concept_is_drawn_by_all_three_and_named(folder):
    concepts = read_concepts(folder, 32)
    assert concepts.codes == tuple(sorted(codes_of(40)))
    assert not set(concepts.codes) & set(LEFT_OUT)  # a flag, a keycap, a skin tone
    assert concepts.pictures.shape == (40, 3, 32, 32, 3) and concepts.pictures.dtype == np.uint8
    place = concepts.codes.index("1f305")
    assert concepts.names[place] == "Thing 05"
    for artist in range(3):
        expected = prepare_picture(drawing("1f305", artist), 32)
        np.testing.assert_array_equal(concepts.pictures[place, artist], expected)


def test_a_concept_without_a_drawing_or_a_name_is_left_out(folder):
    codes = codes_of(40)
    for place, package in enumerate((NOTO, TWEMOJI, FLUENT, NAMES)):
        write_tgz(folder / FILES[package], members_of(package, [c for c in codes if c != codes[place]]))
    assert read_concepts(folder, 32).codes == tuple(sorted(codes[4:]))


def test_names_in_another_language(folder):
    english, chinese = (read_concepts(folder, 32, language) for language in ("en", "zh"))
    assert chinese.names[chinese.codes.index("1f305")] == "东西05"
    assert chinese.codes == english.codes  # so the same concepts are asked
    np.testing.assert_array_equal(chinese.pictures, english.pictures)


def test_asked_concepts_are_fixed_and_in_no_training(folder):
    concepts = read_concepts(folder, 32)
    known, asked = split(concepts)
    assert len(asked.codes) == 8 and not set(known.codes) & set(asked.codes)
    assert not {family(c) for c in known.codes} & {family(c) for c in asked.codes}
    again = split(concepts.only(reversed(range(40))))[1]
    assert set(again.codes) == set(asked.codes)  # whatever the order
    fewer = split(concepts.only(i for i in range(40) if concepts.codes[i] in known.codes or i % 2))[1]
    assert set(asked.codes) & {concepts.codes[i] for i in range(1, 40, 2)} <= set(fewer.codes)
    assert known.for_training().pictures.shape[1] == TAUGHT
    np.testing.assert_array_equal(known.for_training().pictures, known.pictures[:, :2])


def test_variants_of_an_asked_concept_are_in_neither_part(folder, monkeypatch):
    assert family("1f468-200d-1f33e") == family("1f9d1-200d-1f33e") == family("1f469-200d-1f33e")
    assert family("1f3c3-200d-2640") == family("1f3c3") == family("1f3c3-200d-27a1") != family("1f3c4")
    assert family("1f474") == family("1f475") == family("1f9d3") != family("1f9d1")  # an old man, woman, person
    assert family("1f46d") == family("1f9d1-200d-1f91d-200d-1f9d1") == family("1f469-200d-1f91d-200d-1f468")
    assert family("1f46a") == family("1f468-200d-1f469-200d-1f466")
    assert family("1f385") == family("1f9d1-200d-1f384") and family("1f57a") == family("1f483")
    assert [family(code) for code in ("2640", "2642", "27a1")] == ["2640", "2642", "27a1"]  # signs alone
    concepts = read_concepts(folder, 32)
    monkeypatch.setattr(packages, "ASKED", 38)  # all families
    known, asked = split(concepts)
    assert len(asked.codes) == 38 and not known.codes
    assert [c for c in asked.codes if "200d" in c] == ["1f468-200d-1f33e"]


def test_the_joint_package_is_never_opened(folder):
    before = read_concepts(folder, 32)
    (folder / "emoji-datasource-16.0.0.tgz").write_bytes(b"not to be read")
    np.testing.assert_array_equal(read_concepts(folder, 32).pictures, before.pictures)


def test_a_browser_gives_the_package_another_name(folder):
    (folder / FILES[FLUENT]).rename(folder / "fluent-emoji-3d-1.1.0.tgz")
    assert len(read_concepts(folder, 32).codes) == 40


@pytest.mark.parametrize("package", FILES)
def test_a_missing_or_double_package_is_named(folder, package):
    path = folder / FILES[package]
    path.with_name(path.name.replace(".tgz", ".1.tgz")).write_bytes(path.read_bytes())
    with pytest.raises(UserError, match=f"has 2 files of the package {package}: keep one"):
        read_concepts(folder, 32)
    for file in folder.glob(path.name.replace(".tgz", "*")):
        file.unlink()
    with pytest.raises(UserError, match=f"has no package {package}; 'npm pack {package}'"):
        read_concepts(folder, 32)


@pytest.mark.parametrize("package", FILES)
def test_a_package_that_is_cut_is_one_line(folder, package):
    path = folder / FILES[package]
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(UserError, match="cannot read") as error:
        read_concepts(folder, 32)
    assert path.name in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("package", "changed", "message"),
    [
        (NOTO, {"package/emoji.json": b"{"}, "package/emoji.json is damaged"),
        (NOTO, {"package/emoji.json": b"[1]"}, "is not a list of emoji"),
        (NOTO, {"package/emoji.json": b"7"}, "is not a list of emoji"),
        (NOTO, {"package/emoji.json": None}, "has no package/emoji.json"),
        (NAMES, {"package/annotations/en/annotations.json": b'{"annotations": []}'}, "has not the form"),
        (NAMES, {"package/annotations/en/annotations.json": None}, "has no package/annotations/en"),
        (TWEMOJI, {"package/img/twitter/64/1f305.png": b"no picture"}, "1f305.png': it is not a picture"),
        (FLUENT, {"package/assets/1f305.webp": b"\0" * 1_000_001}, "'package/assets/1f305.webp' is too large"),
    ],
)
def test_a_package_with_other_contents_is_one_line(folder, package, changed, message):
    members = members_of(package, codes_of(40)) | changed
    write_tgz(folder / FILES[package], {name: data for name, data in members.items() if data is not None})
    with pytest.raises(UserError, match=message) as error:
        read_concepts(folder, 32)
    assert "\n" not in str(error.value)


def test_a_package_that_unpacks_to_too_much_is_refused(folder, monkeypatch):
    monkeypatch.setattr(packages, "MOST_UNPACKED", 10_000)
    with pytest.raises(UserError, match="too large for this package"):
        read_concepts(folder, 32)


def test_links_and_large_heads_are_not_followed(folder):
    path = folder / FILES[FLUENT]
    with tarfile.open(path, "w:gz") as archive:
        for name, data in members_of(FLUENT, codes_of(40)).items():
            head = tarfile.TarInfo(name)
            if "1f305" in name:
                head.type, head.linkname = tarfile.SYMTYPE, "/etc/passwd"
                archive.addfile(head)
            else:
                head.size = len(data)
                archive.addfile(head, io.BytesIO(data))
    assert "1f305" not in read_concepts(folder, 32).codes
    with tarfile.open(path, "w:gz", format=tarfile.PAX_FORMAT) as archive:
        head = tarfile.TarInfo("a")
        head.pax_headers = {"comment": "x" * 300_000}
        archive.addfile(head)
    with pytest.raises(UserError, match="cannot read"):
        read_concepts(folder, 32)
