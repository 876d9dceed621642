"""docs/faq.md: every message on the page is one that the code prints."""

import ast
import functools
import re
import shlex
import shutil
from pathlib import Path

import pytest

from tinyflamingo import cli

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "docs" / "faq.md").read_text(encoding="utf-8")
LINES = [line for block in re.findall(r"^```text\n(.*?)^```", PAGE, re.M | re.S) for line in block.splitlines()]
COMMANDS = re.findall(r"^```console\n\$ python -m tinyflamingo (.*)\n(.*)\n```", PAGE, re.M)


@functools.cache
def messages():
    """The strings of the code: a regular expression, in which a value can be anything, and how much of it is fixed."""
    files = [path for folder in ("tinyflamingo", "docs", "tests") for path in (ROOT / folder).rglob("*.py")]
    nodes = [node for path in files if path != Path(__file__) for node in ast.walk(ast.parse(path.read_bytes()))]
    lengths = {}
    for node in nodes:
        if isinstance(node, ast.JoinedStr):
            parts = [part.value if isinstance(part, ast.Constant) else None for part in node.values]
        else:
            text = node.value if isinstance(node, ast.Constant) and isinstance(node.value, str) else ""
            parts = [None if part.startswith("{") else part for part in re.split(r"(\{\w+\})", text)]  # for `format`
        pattern = "".join(".*" if part is None else re.escape(part) for part in parts)
        lengths[pattern] = sum(len(part) for part in parts if part)
    return {re.compile(pattern): fixed for pattern, fixed in lengths.items()}


def printed(line):
    """Whether the code has this message: `…` stands for a value, and at least half of the message is fixed."""
    words = len(line.replace("…", ""))
    lines = (line, line.removeprefix("tinyflamingo: "))
    return any(pattern.fullmatch(text) and fixed > words / 2 for pattern, fixed in messages().items() for text in lines)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A reader's folder, with the files of the page's commands."""
    shutil.copytree(ROOT / "docs" / "examples", tmp_path / "docs" / "examples")
    (tmp_path / "renamed.png").write_text("hello")
    (tmp_path / "phone.heic").write_bytes(b"\0\0\0\x18ftypheic")
    (tmp_path / "cut.mp4").write_bytes((ROOT / "docs" / "examples" / "moves_left.mp4").read_bytes()[:1500])
    (tmp_path / "pictures").mkdir()
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize("command, message", COMMANDS, ids=[command[:60] for command, _ in COMMANDS])
def test_a_command_prints_the_message(command, message, folder, capsys):
    assert cli.main(shlex.split(command)) == 2
    assert capsys.readouterr().err.strip() == message


@pytest.mark.parametrize("line", LINES)
def test_a_message_is_in_the_code(line):
    assert printed(line)


def test_every_block_is_tested():
    assert len(COMMANDS) == PAGE.count("```console\n") >= 9 and len(LINES) >= 25
    assert PAGE.count("```") == 2 * (len(COMMANDS) + PAGE.count("```text\n"))


def test_another_message_is_noticed():
    assert not printed("nothing to resume: … does not exist; begin a run without --resume")
    assert not printed("nothing to resume: …") and not printed("checkpoint …: it is …")


def test_what_other_programs_say_has_its_cause_here():
    requirements = (ROOT / "requirements.txt").read_text().splitlines()
    assert re.search(r"distribution found for (numba\S+?)`", PAGE)[1] in requirements
    assert [line for line in requirements if line.startswith(re.search(r"requirement (autograd)", PAGE)[1])]
