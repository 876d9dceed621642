"""The Chinese edition: the same notebooks and texts, paragraph by paragraph, from catalogues.

    python notebooks/build.py --language zh_CN --update [NAME ...]   take new and changed texts into the catalogues
    python notebooks/build.py --language zh_CN --check [NAME ...]    change nothing; print what is missing or wrong
    python notebooks/build.py --language zh_CN [NAME ...]            write notebooks/zh, README.zh.md and docs/zh

A NAME is a notebook (07_masking), the hints of its checks (n07_masking), the other messages (messages), what Python
says in them (python), the questions after the notebooks (quizzes), the words of the site (site), or a text (README, or
one of `TEXTS`). Without names: all. A catalogue is a PO file, which any editor for PO files opens:

    notebooks/locale/zh_CN/07_masking.po    docs/locale/zh_CN/README.po    tinyflamingo/locale/zh_CN/n07_masking.po

An entry is a paragraph, an item of a list, a row of a table, a line of indented code, a hint, or a part of a question.
`docs/locale/zh_CN/TERMS.md` has the rules for translators and the terms. Code is never translated, and nothing is
run: outputs are those of the English notebook, and for a quiz what it prints in Chinese.
"""

from __future__ import annotations

import ast
import contextlib
import difflib
import io
import os
import re
import sys
import tomllib
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple
from unittest import mock

import build
import nbformat
import polib
from markdown_it import MarkdownIt
from nbformat import NotebookNode

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
sys.path.append(str(ROOT))  # the package, if it is not installed

from tinyflamingo.classroom import quiz as classroom_quiz  # noqa: E402

LANGUAGE = "zh_CN"
TEXTS = (  # in docs/
    "chapter",
    "teaching",
    "glossary",
    "faq",
    "explorer",
    "commands",
    "scores",
    "results",
    "systems",
    "own_data",
    "omniglot",
    "sizes",
    "parity",
    "architecture",
    "scaling",
    "performance",
    "deviations",
    "emoji",
)
OTHER_LANGUAGE = "[中文](README.zh.md)", "[English](README.md)"  # the link at the top of each README
PICTURE = "figures/explorer.png", "figures/explorer_zh.png"  # the explorer in each language
PACKAGE = ROOT / "tinyflamingo"
TERMS = ROOT / "docs" / "locale" / LANGUAGE / "TERMS.md"
METADATA = {"Language": LANGUAGE, "Content-Type": "text/plain; charset=UTF-8", "Content-Transfer-Encoding": "8bit"}
ALIKE = 0.7  # a new text that is so similar to a dropped one gets its translation, marked as fuzzy

QUIZ = re.compile(r"^(ask_quiz|check_quiz)\((.+)\)$", re.MULTILINE)
CODE = re.compile(r"(`+)(?!`).+?(?<!`)\1(?!`)")
FORMULA = re.compile(r"\$\$.+?\$\$|\$[^\s$](?:[^$]*[^\s$])?\$")
LINK = re.compile(r"(?<=\]\()[^)\s]+(?=\))")
COMMENT = re.compile(r"<!-- .*? -->")
SLOT = re.compile(r"\[\[\d+\]\]")
VALUE = re.compile(r"\{[a-z]\w*(?:![rs])?(?::[^{}]*)?\}")  # of a message, with its format
# {function: which argument a reader sees}.
SHOWN = dict.fromkeys(("_", "label", "say", "complain", "UserError", "Stopped", "BadRecord", "left_out"), 0)
SHOWN |= {"in_both_languages": 0, "ArgumentTypeError": 0, "FloatingPointError": 0, "require": -1}
# Files and folders in which every sentence is for the reader; in the checks f-strings are prompts.
WHOLE = dict.fromkeys(("cli", "images.py", "video.py", "processes.py"), (ast.Constant, ast.JoinedStr))
WHOLE |= {"checks": ast.Constant}
NUMBER = re.compile(r"\d+(?:[.,:]\d+)*")
NUMBER_OR_CODE = re.compile(rf"{CODE.pattern}|{NUMBER.pattern}")
WORD = re.compile(r"[A-Za-z]{2,}")
SENTENCE = re.compile(r"[A-Za-z]{2,}[^A-Za-z]{0,2} [A-Za-z(]")  # of strings in code: two words, not a name
PROSE = re.compile(r"(?:[A-Za-z]{2,} ){3}")
# What Python and the system say to those who use a command; a value has its place, as in an f-string.
PYTHON = (
    "positional arguments",
    "options",
    "show this help message and exit",
    "show program's version number and exit",
    "argument {name}: {message}",
    "the following arguments are required: {names}",
    "unrecognized arguments: {names}",
    "expected one argument",
    "expected at least one argument",
    "invalid choice: {value} (choose from {choices})",
    "invalid float value: {value}",
    "ambiguous option: {option} could match {options}",
    "ignored explicit argument {value}",
    "No such file or directory",
    "Permission denied",
    "No space left on device",
    "Is a directory",
    "Not a directory",
    "File exists",
    "File name too long",
    "Read-only file system",
    "Disk quota exceeded",
    "Input/output error",
)
CHINESE = re.compile(r"[\u4e00-\u9fff]")
HALF_WIDTH = re.compile(r"[\u4e00-\u9fff][,;:?!]")
GENERATED = re.compile(r"<!-- generated: \w+ -->(.*?)<!-- end -->")  # numbers in it come from files and change
MARK = re.compile(r"(\s*(?:(?:#+|[-*+]|\d+[.)]|>) +)*)(.*)")


class NotBuilt(Exception):
    """A code cell has no outputs yet."""


class Source(NamedTuple):
    """What is translated. texts: {text: its place}; write: path and content of the Chinese file, if it has one."""

    name: str
    catalogue: Path
    texts: Callable[[], dict[str, str]]
    write: Callable[[dict], tuple[Path, str]] | None = None


# ---------------------------------------------------------------- texts in Markdown


def pieces(markdown: str) -> Iterator[tuple[str, str]]:
    """(marks, text) such as ("## ", "A heading"): joined by line ends they give the text with its paragraphs unwrapped.

    Empty lines, fenced code, and lines that are only a comment have no text. Each line of indented code is a piece.
    """
    marks, text, fenced = None, "", False
    for line in markdown.splitlines():
        fence = line.lstrip().startswith("```")
        mark, words = MARK.fullmatch(line).groups()
        fixed = fenced or fence or not COMMENT.sub("", words).strip()
        fenced ^= fence
        indented = line.startswith("    ") and (not text or marks.isspace())
        if not fixed and text and not (indented or mark.strip() or words.startswith("|") or marks.startswith("#")):
            text += " " + words
            continue
        if marks is not None:
            yield marks, text
        marks, text = (line, "") if fixed else (mark, words)
    if marks is not None:
        yield marks, text


def with_slots(markdown: str) -> Iterator[tuple[str, str, list[str]]]:
    """(marks, text, numbers) of each piece: numbers that a command has written are [[0]], [[1]], ... in the text."""
    generated = False
    for marks, text in pieces(markdown):
        generated = (generated or marks.startswith("<!-- generated")) and not marks.startswith("<!-- end")
        numbers: list[str] = []

        def slot(match, numbers=numbers):
            if match[0].startswith("`"):
                return match[0]
            numbers.append(match[0])
            return f"[[{len(numbers) - 1}]]"

        if generated:
            text = NUMBER_OR_CODE.sub(slot, text)
        yield marks, GENERATED.sub(lambda part, slot=slot: NUMBER_OR_CODE.sub(slot, part[0]), text), numbers


def has_words(text: str) -> bool:
    """Whether there is something to translate, beside code, formulas, comments and targets of links."""
    return bool(WORD.search(_prose(text)))


def _prose(text):
    for pattern in (COMMENT, CODE, FORMULA, LINK, VALUE):
        text = pattern.sub(" ", text)
    return text


def texts_of(markdown: str, place: str) -> dict[str, str]:
    """{text: its place} of everything to translate in a text."""
    return {text: place for _, text, _ in with_slots(markdown) if has_words(text)}


def translated(markdown: str, words: dict[str, str], old: Path, new: Path) -> str:
    """The text with its pieces translated; its links lead from the folder `new` to where they led from `old`."""
    lines = []
    for marks, text, numbers in with_slots(markdown):
        text = SLOT.sub(lambda slot, numbers=numbers: numbers[int(slot[0][2:-2])], words.get(text, text))
        lines.append(marks + LINK.sub(lambda link: _moved(link[0], old, new), text))
    return "\n".join(lines)


def _moved(link, old, new):
    """A relative link from another folder; to the Chinese text if there is one."""
    path, _, anchor = link.partition("#")
    if not path or ":" in path:
        return link
    target = (old / path).resolve()
    chinese = editions().get(target)
    moved = Path(os.path.relpath(chinese or target, new)).as_posix()
    return f"{moved}#{anchor}" if anchor and not chinese else moved


# ---------------------------------------------------------------- what is translated


def editions() -> dict[Path, Path]:
    """{the English file: the Chinese file} of notebooks and texts."""
    notebooks = [HERE / f"{source.stem}.ipynb" for source in build.sources()]
    texts = {ROOT / "docs" / f"{name}.md": ROOT / "docs" / "zh" / f"{name}.md" for name in TEXTS}
    return {path: HERE / "zh" / path.name for path in notebooks} | {ROOT / "README.md": ROOT / "README.zh.md"} | texts


def sources() -> dict[str, Source]:
    """Everything that has a catalogue, by name."""
    made = [(_notebook if path.suffix == ".ipynb" else _text)(path, chinese) for path, chinese in editions().items()]
    modules = sorted(PACKAGE.rglob("*.py"))
    checks = [path for path in modules if path.parent.name == "checks" and path.stem.startswith("n")]
    made += [_strings(path.stem, [path]) for path in checks]
    made.append(_strings("messages", [path for path in modules if path not in checks]))
    made.append(Source("python", PACKAGE / "locale" / LANGUAGE / "python.po", lambda: dict.fromkeys(PYTHON, "python")))
    made.append(Source("site", ROOT / "docs" / "locale" / LANGUAGE / "site.po", _words_of_the_site))
    made.append(Source("quizzes", PACKAGE / "locale" / LANGUAGE / "quizzes.po", _quizzes))
    return {source.name: source for source in made}


def _notebook(english, chinese):
    source = HERE / "src" / f"{english.stem}.py"

    def texts():
        cells = [cell for cell in build.read_source(source).cells if cell.cell_type == "markdown"]
        return {text: place for cell in cells for text, place in texts_of(cell.source, cell.id).items()}

    def write(words):
        notebook = in_chinese(build.read_source(source), nbformat.read(english, as_version=4), words)
        return chinese, nbformat.writes(notebook) + "\n"

    return Source(english.stem, HERE / "locale" / LANGUAGE / f"{english.stem}.po", texts, write)


def in_chinese(notebook: NotebookNode, english: NotebookNode, words: dict[str, str]) -> NotebookNode:
    """The cells of a source with the texts translated and the same code. Outputs are those of the English notebook,
    but for quizzes."""
    runs = {cell.source: cell for cell in english.cells if cell.cell_type == "code"}
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            cell.source = translated(cell.source, words, HERE, HERE / "zh")
        elif cell.source not in runs:
            raise NotBuilt("the English notebook is older than its source: first run python notebooks/build.py")
        else:
            cell.outputs, cell.execution_count = runs[cell.source].outputs, runs[cell.source].execution_count
            if quiz := QUIZ.search(cell.source):
                cell.outputs[0].text = _printed_in_chinese(getattr(classroom_quiz, quiz[1]), quiz[2])
    return build.describe_figures(notebook)


def _printed_in_chinese(function, arguments):
    """What a function prints. arguments: their source, such as '"07"'."""
    with mock.patch.dict(os.environ, TINYFLAMINGO_LANGUAGE=LANGUAGE), contextlib.redirect_stdout(io.StringIO()) as out:
        function(*ast.literal_eval(f"({arguments},)"))
    return out.getvalue()


def _text(english, chinese):
    def texts():
        return texts_of(english.read_text(encoding="utf-8"), english.name)

    def write(words):
        markdown = english.read_text(encoding="utf-8")
        text = translated(markdown, words, english.parent, chinese.parent)
        return chinese, text.replace(*OTHER_LANGUAGE).replace(*PICTURE) + "\n"

    return Source(english.stem, ROOT / "docs" / "locale" / LANGUAGE / f"{english.stem}.po", texts, write)


def _strings(name, modules):
    def texts():
        return {text: place for module in modules for text, place in strings_of(module).items()}

    return Source(name, PACKAGE / "locale" / LANGUAGE / f"{name}.po", texts)


def _words_of_the_site():
    """The sentences that the pages of the site have beside the texts."""
    modules = sorted((ROOT / "docs" / "site").glob("*.py"))
    return {text: place for module in modules for text, place in strings_of(module).items()}


def _quizzes():
    """The titles, questions, answers and replies, in their order in the files."""

    def strings(part):
        if isinstance(part, str):
            return [part]
        return [text for inner in (part.values() if isinstance(part, dict) else part) for text in strings(inner)]

    files = sorted((PACKAGE / "classroom" / "quizzes").glob("*.toml"))
    return {
        text: path.stem
        for path in files
        for text in strings(tomllib.loads(path.read_text(encoding="utf-8")))
        if has_words(text)
    }


def strings_of(module: Path) -> dict[str, str]:
    """{string: function} of a file: what the functions in SHOWN get; in files and folders of WHOLE every sentence.

    An f-string has its values as places: f"{len(files)} files" is "{value} files".
    """
    tree = ast.parse(module.read_text(encoding="utf-8"))
    nodes = [(node, getattr(top, "name", module.stem)) for top in tree.body for node in ast.walk(top)]
    others = {part for node, _ in nodes if isinstance(node, ast.JoinedStr) for part in node.values}
    others |= {node.value for node, _ in nodes if isinstance(node, ast.Expr)}  # docstrings
    shown = [node.args[SHOWN[_function(node)]] for node, _ in nodes if _function(node) in SHOWN]
    direct = {part for node in shown for part in (node, getattr(node, "body", None), getattr(node, "orelse", None))}
    inside = {part for node in shown for part in ast.walk(node)}
    kinds = WHOLE.get(module.name) or WHOLE.get(module.parent.name, ())
    places = []
    for node, place in nodes:
        text = _text_of(node)
        is_sentence = (isinstance(node, kinds) or node in inside) and SENTENCE.search(VALUE.sub("xx", text))
        has_letters = re.search("[A-Za-z]", VALUE.sub("", text))
        if node not in others and has_letters and (node in direct or is_sentence):
            places.append((node.lineno, node.col_offset, text, place))
    return {string: place for _, _, string, place in sorted(places)}


def _function(node):
    """The name of the function that a node calls with arguments, or ""."""
    function = node.func if isinstance(node, ast.Call) and node.args else None
    return getattr(function, "id", getattr(function, "attr", ""))


def _text_of(node):
    """The text of a string or of an f-string; "" of other nodes."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    if not isinstance(node, ast.JoinedStr):
        return ""
    names: dict[str, str] = {}
    return "".join(
        part.value if isinstance(part, ast.Constant) else f"{{{_name_of(part.value, names)}}}" for part in node.values
    )


def _name_of(expression, names):
    """The name of a value of an f-string. names: those of its other values, {code: name}."""
    name = getattr(expression, "id", getattr(expression, "attr", "value")).lower().strip("_")
    code = ast.unparse(expression)
    same = sum(other.rstrip("0123456789") == name for other in names.values())
    return names.setdefault(code, f"{name}{same + 1}" if same else name)


# ---------------------------------------------------------------- catalogues


def update(source: Source) -> str:
    """Take new texts into a catalogue and drop those that are gone; returns what has changed, in words."""
    old = {entry.msgid: entry for entry in read_entries(source)}
    texts = source.texts()
    gone = {text: entry.msgstr for text, entry in old.items() if text not in texts and entry.msgstr}
    catalogue = polib.POFile(wrapwidth=0)
    catalogue.metadata = METADATA
    for text, place in texts.items():
        entry = old.get(text) or _like(text, gone)
        entry.occurrences = [(place, "")]
        catalogue.append(entry)
    source.catalogue.parent.mkdir(parents=True, exist_ok=True)
    catalogue.save(str(source.catalogue), newline="\n")
    new = sum(text not in old for text in texts)
    return f"{new} new, {len(old.keys() - texts.keys())} dropped, {len(texts)} entries"


def _like(text, gone):
    """A new entry; if a dropped text is nearly the same, with its translation, to be looked at."""
    near = difflib.get_close_matches(text, gone, n=1, cutoff=ALIKE)
    if not near:
        return polib.POEntry(msgid=text)
    return polib.POEntry(msgid=text, msgstr=gone[near[0]], flags=["fuzzy"], previous_msgid=near[0])


def read_entries(source: Source) -> list:
    """The entries of a catalogue; [] if it does not exist yet."""
    return list(polib.pofile(str(source.catalogue), encoding="utf-8")) if source.catalogue.is_file() else []


def faults(source: Source) -> Iterator[str]:
    """What is missing or wrong in a catalogue and in the file that is written from it, one line each."""
    entries, texts, terms = read_entries(source), source.texts(), read_terms()
    for text in texts.keys() - {entry.msgid for entry in entries}:
        yield f"no entry, run --update: {text}"
    for entry in entries:
        problems = ["no longer in the source, run --update"] if entry.msgid not in texts else list(wrong(entry, terms))
        yield from (f"line {entry.linenum}: {fault}: {entry.msgid[:60]}" for fault in problems)
    try:
        yield from _differs(source, chosen(entries))
    except NotBuilt as error:
        yield str(error)


def _differs(source, words):
    """Whether the file that is written from a catalogue is another one than it should be."""
    if source.write:
        path, content = source.write(words)
        if not path.is_file() or path.read_text(encoding="utf-8") != content:
            yield f"{path.relative_to(ROOT).as_posix()} differs from its source or its catalogue: write it again"


def chosen(entries: list) -> dict[str, str]:
    """{text: translation} of the entries that have one."""
    return {entry.msgid: entry.msgstr for entry in entries if entry.translated()}


def wrong(entry: polib.POEntry, terms: dict[str, str]) -> Iterator[str]:
    """The faults of one entry."""
    english, chinese = entry.msgid, entry.msgstr
    if not chinese:
        yield "not translated"
        return
    if entry.fuzzy:
        yield f'fuzzy: compare with the English, which was "{entry.previous_msgid}", and remove the mark'
    for part in sorted(_exact(english) - _exact(chinese)):
        yield f"lacks {part}"
    for part in sorted(_slots(chinese) ^ _slots(english)):
        yield f"the place of a value differs: {part}"
    if _emphasis(english) != _emphasis(chinese):
        yield "bold, italics or links differ: a mark beside Chinese punctuation needs a space or another place"
    if PROSE.search(_prose(english)) and not CHINESE.search(chinese):
        yield "still English"
    if half := HALF_WIDTH.search(_prose(chinese)):
        yield f"half-width punctuation: {half[0]}"
    prose = _prose(english)
    for term in sorted(terms, key=len, reverse=True):
        rest = re.sub(rf"(?<![\w-]){re.escape(term)}(?:s|es)?(?![\w-])", " ", prose, flags=re.IGNORECASE)
        named, prose = rest != prose, rest  # a longer term hides its parts
        if named and terms[term] not in chinese and term not in entry.tcomment and chinese != english:
            yield f'"{term}" is "{terms[term]}"'


def _exact(text):
    """What stands in a translation exactly as in the source: code, formulas, links, comments, numbers."""
    kept = {match[0] for pattern in (CODE, FORMULA, LINK, COMMENT, SLOT) for match in pattern.finditer(text)}
    return kept | set(NUMBER.findall(_prose(text)))


def _slots(text):
    return set(VALUE.findall(text))


def _emphasis(text):
    tokens = MarkdownIt("commonmark").parseInline(FORMULA.sub("x", text))[0].children
    kinds = ("strong_open", "em_open", "link_open", "image")
    return Counter(token.type for token in tokens if token.type in kinds)


def read_terms() -> dict[str, str]:
    """{English term: its one translation}, from the table in TERMS.md."""
    table = TERMS.read_text(encoding="utf-8").partition("| English | 中文 |\n|---|---|\n")[2]
    return dict(re.findall(r"^\| ([^|]+) \| ([^|]+) \|$", table, re.MULTILINE))


# ---------------------------------------------------------------- the command


def main(arguments: list[str]) -> int:
    """Write, or --update, or --check. Returns the exit code."""
    names = [argument for argument in arguments if argument not in ("--update", "--check")]
    known = sources()
    if unknown := [name for name in names if name not in known]:
        print(f"unknown: {', '.join(unknown)}; known: {', '.join(known)}")
        return 2
    return sum(_do(known[name], arguments) for name in names or known) and 1


def _do(source, arguments):
    """One source. Returns how many faults it has."""
    if "--update" in arguments:
        print(f"{source.name}: {update(source)}")
        return 0
    if "--check" in arguments:
        problems = list(faults(source))
        words = sum(len(text.split()) for text in source.texts())
        print(*(f"{source.name}: {fault}" for fault in problems), sep="\n", end="\n" if problems else "")
        print(f"{source.name}: {len(source.texts())} entries, {words} English words, {len(problems)} faults")
        return len(problems)
    if source.write:
        path, content = source.write(chosen(read_entries(source)))
        path.parent.mkdir(exist_ok=True)
        path.write_text(content, encoding="utf-8", newline="\n")
        print(path.relative_to(ROOT).as_posix())
    return 0
