"""The Chinese edition: its catalogues agree with the English texts, and what is written from them is up to date."""

import ast
import importlib
import pickle
import re
import subprocess
import sys
import time
import tomllib
from pathlib import Path

import pytest

polib = pytest.importorskip("polib")
nbformat = pytest.importorskip("nbformat")
pytest.importorskip("nbclient")
MarkdownIt = pytest.importorskip("markdown_it").MarkdownIt

from tinyflamingo import cli, language  # noqa: E402
from tinyflamingo.checks import core  # noqa: E402
from tinyflamingo.classroom import quiz  # noqa: E402
from tinyflamingo.errors import Stopped, UserError  # noqa: E402

ROOT = Path(__file__).parent.parent
ENGLISH = re.compile("[a-z]{2,} [a-z]{2,} [a-z]{2,}")


@pytest.fixture(scope="module")
def translate():
    sys.path.insert(0, str(ROOT / "notebooks"))
    yield importlib.import_module("translate")
    sys.path.remove(str(ROOT / "notebooks"))


@pytest.fixture
def chinese(monkeypatch):
    monkeypatch.setenv("TINYFLAMINGO_LANGUAGE", "zh")


def entry(msgid, msgstr, **more):
    return polib.POEntry(msgid=msgid, msgstr=msgstr, **more)


# ---- the catalogues and the files that are written from them -----------------------------------

CATALOGUES = [*ROOT.glob("*/locale/zh_CN/*.po")]
each_catalogue = pytest.mark.parametrize("path", CATALOGUES, ids=lambda path: path.stem)


@each_catalogue
def test_the_catalogue_has_no_faults(translate, path):
    """Entries that nobody has begun to translate are allowed: each catalogue is translated for itself."""
    source = translate.sources()[path.stem]
    assert source.catalogue == path
    if any(entry.msgstr for entry in polib.pofile(str(path))):
        assert list(translate.faults(source)) == []


@each_catalogue
def test_the_catalogue_has_the_texts_of_its_source(translate, path):
    assert [e.msgid for e in polib.pofile(str(path))] == list(translate.sources()[path.stem].texts())


def test_every_text_has_a_catalogue(translate):
    assert sorted(source.catalogue for source in translate.sources().values()) == sorted(CATALOGUES)


def test_what_is_written_has_a_translated_catalogue(translate):
    written = {*(ROOT / "notebooks" / "zh").glob("*"), *(ROOT / "docs" / "zh").glob("*"), *ROOT.glob("README.zh.md")}
    assert written <= set(translate.editions().values())


@pytest.mark.parametrize("path", sorted((ROOT / "notebooks" / "zh").glob("*.ipynb")), ids=lambda path: path.stem)
def test_a_chinese_notebook_is_valid_small_and_open(path):
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    assert path.stat().st_size < 300_000
    assert "# solution" not in path.read_text(encoding="utf-8")
    titles = [cell.source for cell in notebook.cells if cell.cell_type == "markdown"]
    assert re.search("[\u4e00-\u9fff]", titles[0].splitlines()[0])


# ---- faults are found ---------------------------------------------------------------------------

PLANTED = [
    ("It has 12 tokens.", "它有 12 个符号。", None),
    ("It has 12 tokens.", "它有若干个符号。", "lacks 12"),
    ("It has 12 tokens.", "", "not translated"),
    ("It has 12 tokens.", "它有 12 个词元。", '"token" is "符号"'),
    ("This was not translated at all.", "This was not translated at all.", "still English"),
    ("np.cumsum(x, axis=0)", "np.cumsum(x, axis=0)", None),
    ("Text before the resampler.", "重采样器,之前", "half-width"),
    ("See `phi` here.", "看这里。", "lacks `phi`"),
    ("The sum is $x_1 + 2$.", "和是 $x_1 + 3$。", r"lacks $x_1 + 2$"),
    ("See [this](docs/a.md).", "看[这里](docs/b.md)。", "lacks docs/a.md"),
    ("See [this](docs/a.md).", "看 docs/a.md。", "links differ"),
    ("**Predict.** Why?", "**先猜一猜。**为什么？", "bold, italics"),
    ("**Predict.** Why?", "**先猜一猜。** 为什么？", None),
    (
        "about <!-- generated: m -->[[0]]<!-- end --> minutes",
        "约 <!-- generated: m -->12<!-- end --> 分钟",
        "lacks [[0]]",
    ),
    ("about <!-- generated: m -->[[0]]<!-- end --> minutes", "约 [[0]] 分钟", "lacks <!-- end -->"),
    ("it sees {count:.2g} of {all}", "它看到 {count} / {all}", "place of a value differs"),
    ("it sees {count:.2g} of {all}", "共 {all}，它看到 {count:.2g}", None),
]


@pytest.mark.parametrize("english, words, fault", PLANTED)
def test_a_planted_fault_is_found(translate, english, words, fault):
    problems = list(translate.wrong(entry(english, words), translate.read_terms()))
    assert problems == [] if fault is None else any(fault in line for line in problems), problems


def test_a_fuzzy_entry_is_a_fault(translate):
    fuzzy = entry("One mask.", "一个掩码。", flags=["fuzzy"], previous_msgid="A mask.")
    assert [line for line in translate.wrong(fuzzy, {}) if 'was "A mask."' in line]


def test_a_word_in_another_sense_is_named_in_a_comment(translate):
    terms = {"head": "注意力头"}
    assert list(translate.wrong(entry("The head of the page.", "页面的开头。"), terms))
    assert not list(translate.wrong(entry("The head of the page.", "页面的开头。", tcomment="head"), terms))


def test_a_longer_term_hides_its_parts(translate):
    terms = {"embedding": "嵌入", "temporal embedding": "时间编码"}
    assert not list(translate.wrong(entry("A temporal embedding.", "一个时间编码。"), terms))
    faults = list(translate.wrong(entry("A temporal embedding, an embedding.", "编码。"), terms))
    assert faults == ['"temporal embedding" is "时间编码"', '"embedding" is "嵌入"']


def test_the_name_of_a_value_is_no_term(translate):
    assert not list(translate.wrong(entry("{key} is done", "{key} 已完成"), {"key": "键"}))


def test_every_term_has_one_translation(translate):
    table = re.findall(r"^\| ([^|]+) \| [^|]+ \|$", translate.TERMS.read_text(encoding="utf-8"), re.MULTILINE)
    assert len(translate.read_terms()) > 50
    assert len(set(table)) == len(table)


def source_of(translate, tmp_path, texts, write=None):
    return translate.Source("a", tmp_path / "a.po", lambda: dict.fromkeys(texts, "here"), write)


def test_missing_unused_and_old_are_faults(translate, tmp_path, monkeypatch):
    monkeypatch.setattr(translate, "ROOT", tmp_path)
    written = tmp_path / "a.md"
    source = source_of(translate, tmp_path, ["One mask.", "Two."], lambda words: (written, "一个掩码。"))
    file = polib.POFile()
    file += [entry("One mask.", "一个掩码。"), entry("Three.", "三。")]
    file.save(str(source.catalogue))
    written.write_text("别的", encoding="utf-8")
    problems = "\n".join(translate.faults(source))
    assert problems.count("\n") == 2
    assert "no entry, run --update: Two." in problems
    assert "no longer in the source" in problems and "Three." in problems
    assert "a.md differs" in problems


def test_an_update_keeps_translations_and_marks_what_has_changed(translate, tmp_path):
    old = ["The mask has one row for every token.", "It is gone.", "Same."]
    translate.update(source_of(translate, tmp_path, old))
    file = polib.pofile(str(tmp_path / "a.po"))
    for number, old_entry in enumerate(file):
        old_entry.msgstr, old_entry.tcomment = f"第 {number} 句", "note"
    file.save()
    new = ["A new paragraph, of other words.", "Same.", "The mask has one row for each token."]
    assert "2 new, 2 dropped, 3 entries" in translate.update(source_of(translate, tmp_path, new))
    first, second, third = polib.pofile(str(tmp_path / "a.po"))
    assert (first.msgid, first.msgstr, first.fuzzy) == (new[0], "", False)
    assert (second.msgid, second.msgstr, second.fuzzy, second.tcomment) == (new[1], "第 2 句", False, "note")
    assert (third.msgid, third.msgstr, third.fuzzy) == (new[2], "第 0 句", True)
    assert third.previous_msgid == old[0]


# ---- texts and notebooks ------------------------------------------------------------------------

MARKDOWN = """# A title

Two lines of
one paragraph.

- an item
  that goes on
- `code` only: `x`

| a row | `x` |
|---|---|

    the loss of
    two lines

```
a block of code
```
<!-- generated: times -->

| it took | 12.5 s | `t1` |

<!-- end -->
About <!-- generated: n -->7<!-- end --> of 9.
"""


def test_a_text_is_cut_into_paragraphs_items_and_rows(translate):
    assert list(translate.texts_of(MARKDOWN, "here")) == [
        "A title",
        "Two lines of one paragraph.",
        "an item that goes on",
        "`code` only: `x`",
        "| a row | `x` |",
        "the loss of",
        "two lines",
        "| it took | [[0]] s | `t1` |",
        "About <!-- generated: n -->[[0]]<!-- end --> of 9.",
    ]


def test_without_translations_a_text_only_loses_its_line_ends(translate):
    same = translate.translated(MARKDOWN, {}, ROOT, ROOT)
    assert same == MARKDOWN.replace("of\none", "of one").replace("item\n  that", "item that").rstrip("\n")


def test_translated_pieces_take_their_places(translate):
    words = {
        "A title": "标题",
        "| it took | [[0]] s | `t1` |": "| 用时 | [[0]] 秒 | `t1` |",
        "an item that goes on": "一项",
    }
    lines = translate.translated(MARKDOWN, words, ROOT, ROOT).splitlines()
    assert lines[0] == "# 标题" and "- 一项" in lines and "| 用时 | 12.5 秒 | `t1` |" in lines


def test_links_lead_to_the_same_files(translate):
    def moved(text):
        return translate.translated(text, {}, ROOT / "notebooks", ROOT / "notebooks" / "zh")

    assert moved("[a](../CONTRIBUTING.md#style)") == "[a](../../CONTRIBUTING.md#style)"
    assert moved("[a](../docs/teaching.md#plans)") == "[a](../../docs/zh/teaching.md)"
    assert moved("[a](07_masking.ipynb)") == "[a](07_masking.ipynb)"
    assert moved("[a](https://arxiv.org/abs/2204.14198)") == "[a](https://arxiv.org/abs/2204.14198)"
    assert moved("[a](#here)") == "[a](#here)"


def notebook_of(*cells):
    return nbformat.v4.new_notebook(cells=list(cells))


def run_cell(code, text):
    output = nbformat.v4.new_output("stream", text=text)
    return nbformat.v4.new_code_cell(code, execution_count=3, outputs=[output])


def test_a_notebook_has_translated_texts_the_same_code_and_the_same_outputs(translate):
    text = nbformat.v4.new_markdown_cell("# A title")
    code = "print(1)"
    english = notebook_of(text, run_cell(code, "1\n"))
    made = translate.in_chinese(notebook_of(text, nbformat.v4.new_code_cell(code)), english, {"A title": "标题"})
    assert made.cells[0].source == "# 标题"
    assert made.cells[1].source == code
    assert made.cells[1].outputs[0].text == "1\n" and made.cells[1].execution_count == 3


def test_a_quiz_is_printed_in_chinese(translate):
    cells = [run_cell('import x\n\nask_quiz("07")', "1. What"), run_cell('check_quiz("07", ".....")', "Question")]
    made = translate.in_chinese(notebook_of(*cells), notebook_of(*cells), {})
    asked, checked = (cell.outputs[0].text for cell in made.cells)
    assert asked.startswith("1. ") and asked.count("   a) ") == 5 and "掩码" in asked and "What" not in asked
    assert checked.startswith("第 1 题还没有做。\n第 2 题") and checked.count("还没有做") == 5


@pytest.mark.parametrize("path", sorted((ROOT / "notebooks" / "zh").glob("*.ipynb")), ids=lambda path: path.stem)
def test_no_quiz_of_a_chinese_notebook_is_english(path):
    cells = [cell for cell in nbformat.read(path, as_version=4).cells if "_quiz(" in cell.source]
    printed = "".join(output.text for cell in cells for output in cell.outputs)
    assert printed.count("还没有做") == 5 and printed.count("   d) ") == 5 and not ENGLISH.search(printed)


def test_changed_code_has_no_outputs_to_take_over(translate):
    changed = notebook_of(nbformat.v4.new_code_cell("print(2)"))
    with pytest.raises(translate.NotBuilt, match="older than its source"):
        translate.in_chinese(changed, notebook_of(run_cell("print(1)", "1\n")), {})


def test_figures_are_told_in_chinese(translate):
    picture = nbformat.v4.new_output("display_data", {"image/png": ""}, metadata={"image/png": {"alt": "a line"}})
    code = nbformat.v4.new_code_cell("draw()", outputs=[picture])
    english = notebook_of(code, nbformat.v4.new_markdown_cell("*Figure: a line.*"))
    source = notebook_of(nbformat.v4.new_code_cell("draw()"), nbformat.v4.new_markdown_cell("*Figure: a line.*"))
    made = translate.in_chinese(source, english, {"*Figure: a line.*": "*图：一条线。*"})
    assert made.cells[0].outputs[0].metadata["image/png"].alt == "一条线。"


# ---- messages and hints -------------------------------------------------------------------------


def test_an_f_string_is_found_with_places_for_its_values(translate, tmp_path):
    module = tmp_path / "cli" / "x.py"
    module.parent.mkdir()
    code = 'raise UserError(f"{path}: {len(names)} names, first {names[0]!r}, in {path}; {x.why:.3f}")\n'
    code += 'y = _(f"a {kind}" if kind else "no kind")\nz = f"{n} things here"\nw = f"{a} {b}"\n'
    module.write_text(code, encoding="utf-8")
    strings = ["{path}: {value} names, first {value2}, in {path}; {why}", "a {kind}", "no kind"]
    assert list(translate.strings_of(module)) == [*strings, "{n} things here"]
    other = module.rename(tmp_path / "x.py")
    assert list(translate.strings_of(other)) == strings


MESSAGES = [
    entry for name in ("messages", "python") for entry in polib.pofile(str(language.FOLDER / f"zh_CN/{name}.po"))
]


@pytest.mark.parametrize("message", [m for m in MESSAGES if language.PLACE.search(m.msgid)], ids=lambda m: m.msgid)
def test_a_message_with_values_is_recognised(chinese, message):
    """Each entry, with values in its places, gives its own translation with the same values."""

    def filled(text):
        return language.PLACE.sub(lambda place: f"<{place[1]}>", text)

    assert language._(filled(message.msgid)) == filled(message.msgstr)


def test_a_value_that_is_a_sentence_is_translated_and_a_name_is_not(chinese):
    assert language._("cannot write options: Permission denied") == "无法写入 options：没有权限"
    assert language._("options") == "选项"


@pytest.mark.parametrize("part", ["x", " is ", ": ", ", but must be ", "configuration: "])
def test_long_texts_do_not_take_long(chinese, part):
    """A path in an error can have any length and hold any words."""
    language._("any text, so that the catalogue is read")
    for length in (language.LONGEST, 1 << 20):
        began = time.process_time()
        language._((part * length)[:length])
        assert time.process_time() - began < 1


def test_errors_and_help_are_in_the_language_of_the_reader(chinese, monkeypatch):
    error = UserError("cannot read a.png: it is not a folder")
    assert str(error) == "无法读取 a.png：它不是文件夹"
    assert str(pickle.loads(pickle.dumps(error))) == str(error)
    exploded = Stopped("stage flamingo, step 3: it is NaN; the loss is nan; the last saved state is kept")
    assert str(exploded).startswith("阶段 flamingo，第 3 步：") and str(exploded).endswith("上次保存的状态还在")
    monkeypatch.setenv("TINYFLAMINGO_LANGUAGE", "en")
    assert str(error) == "cannot read a.png: it is not a folder"


@pytest.mark.parametrize(
    "command, said",
    [
        ("trian", "参数 COMMAND：不能是 'trian'（可选 "),
        ("complete", "缺少这些参数：template（见 '"),
        ("complete x --nix", "不认识这些参数：--nix（见 '"),
        ("complete x --beams", "参数 --beams：后面应有一个值（见 '"),
        ("complete x --beams 99", "--beams 是 99，但应在 1 到 "),
        ("complete x --seed -1", "参数 --seed：'-1' 不是 >= 0 且不超过 100 位的整数（见 '"),
        ("complete <image><image> a.png", "模板里有 2 个标记（<image> 或 <video>），但命令给了 1 个文件：每个标记"),
        ("complete <image> nix.png", "无法读取图 'nix.png'：没有这个文件；检查路径"),
        ("complete <image> CONTRIBUTING.md", "无法读取图 'CONTRIBUTING.md'：它不是图；请给 PNG、"),
        ("complete x --checkpoint nix", "检查点 nix：没有这个文件夹；用 'python -m tinyflamingo train' 训练一个"),
        ("complete x --checkpoint docs", "检查点 docs：里面没有 model.json；文件夹对吗？"),
        ("train --preset nix", "没有名为 'nix' 的预设：可选 emoji, emoji-zh, no-tasks, omniglot, "),
        ("train --resume --out nix", "没有可以接着训练的内容：nix 不存在；"),
        ("train --mix 0.5", "--mix 只用于你自己的数据：请加上 --data PATH"),
        ("explore --port 99999", "--port 99999：端口是 0 到 65535 之间的数"),
        ("evaluate --task nix", "没有名为 'nix' 的任务：可选 "),
        ("data check docs/examples", "'docs/examples'：没有已知格式的数据（"),
        ("class grade docs/examples", "docs/examples 里没有 notebook（.ipynb）"),
        ("class pack nix/a.zip", "：它所在的文件夹不存在"),
    ],
)
def test_a_mistake_on_the_command_line_is_one_chinese_line(chinese, monkeypatch, capsys, command, said):
    monkeypatch.chdir(ROOT)
    assert cli.main(command.split()) == 2
    line = capsys.readouterr().err
    assert line.startswith("tinyflamingo: ") and line.count("\n") == 1
    assert said in line and not ENGLISH.search(line)


COMMANDS = (
    "train demo complete explore evaluate calibrate ablate report bench params convert parity data class docs doctor"
)


@pytest.mark.parametrize("command", ["", *COMMANDS.split()])
def test_help_is_chinese(chinese, monkeypatch, capsys, command):
    monkeypatch.setenv("COLUMNS", "80")
    with pytest.raises(SystemExit):
        cli.main([*command.split(), "--help"])
    shown = capsys.readouterr().out
    assert shown.startswith("用法：python -m tinyflamingo") and "选项" in shown and not ENGLISH.search(shown)
    assert max(sum(1 + (c > "\u2e7f") for c in line) for line in shown.splitlines()) <= 80


def test_strings_of_checks_and_of_underscore_calls_are_found(translate, tmp_path):
    code = '"""A doc string."""\nx = "two words"\ny = _("one {n}").format(n=1)\nz = f"not {x} this"\n'
    code += 'w = _("a" if x else "b")\n'
    for folder, expected in (("checks", ["two words", "one {n}", "a", "b"]), ("other", ["one {n}", "a", "b"])):
        module = tmp_path / folder / "n07_a.py"
        module.parent.mkdir()
        module.write_text(code, encoding="utf-8")
        assert list(translate.strings_of(module)) == expected


DATA = {"answer {} of {}.", "Question: {}? Answer:", "{} frames of {} x {}, {} latents.", "word {}."}


def test_no_hint_is_an_f_string():
    """An f-string cannot be looked up: a hint with values is _("... {x} ...").format(x=x)."""
    for path in (ROOT / "tinyflamingo" / "checks").glob("n*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.JoinedStr):
                text = "".join(
                    getattr(part, "value", "") if isinstance(part, ast.Constant) else "{}" for part in node.values
                )
                assert text in DATA or not re.search(r"[a-z]{2,} ", text), f"{path.name}: {text}"


@pytest.mark.parametrize(
    "variables, expected",
    [
        ({"TINYFLAMINGO_LANGUAGE": "zh", "LANG": "en_US.UTF-8"}, True),
        ({"TINYFLAMINGO_LANGUAGE": "en", "LANG": "zh_CN.UTF-8"}, False),
        ({"LANG": "zh_CN.UTF-8"}, True),
        ({"LC_ALL": "C.UTF-8", "LANG": "zh_CN.UTF-8"}, False),
        ({"LANG": "de_DE.UTF-8"}, False),
    ],
)
def test_the_language_is_that_of_the_variable_or_of_the_locale(monkeypatch, variables, expected):
    for key in language.CHOOSERS:
        monkeypatch.delenv(key, raising=False)
    for key, value in variables.items():
        monkeypatch.setenv(key, value)
    assert language.is_chinese() == expected


def test_windows_names_its_locale_in_words(monkeypatch):
    for key in language.CHOOSERS:
        monkeypatch.delenv(key, raising=False)
    monkeypatch.setattr(language.locale, "setlocale", lambda category: "Chinese (Simplified)_China.936")
    assert language.is_chinese()


def test_hints_come_in_chinese_with_their_values(chinese, capsys):
    import numpy as np

    from tinyflamingo.checks import check_07_2_phi

    check_07_2_phi.shown = 0
    check_07_2_phi(lambda is_image: np.cumsum(is_image) + 1)
    check_07_2_phi.hint()
    check_07_2_phi.hint()
    said = capsys.readouterr().out
    assert said.startswith("练习 07.2：还不对。符号 0 的 phi 是 1，") and "公式：np.cumsum(is_image, axis=-1)" in said
    assert not re.search("[a-z]{2,} [a-z]{2,}", said)


@pytest.mark.parametrize("number", quiz.numbers())
def test_a_quiz_comes_in_chinese_with_its_answers_in_the_same_places(chinese, monkeypatch, capsys, number):
    asked = quiz.questions(number)
    quiz.ask_quiz(number)
    shown = capsys.readouterr().out
    assert re.search("^1[.] .*[\u4e00-\u9fff]", shown) and not re.search("[a-z]{2,} [a-z]{2,} [a-z]{2,}", shown)
    assert max(map(len, shown.splitlines())) <= quiz.WIDTH // 2
    right = "".join(quiz.LETTERS[[a.right for a in question.answers].index(True)] for question in asked)
    quiz.check_quiz(number, right)
    said = re.sub(r"\s", "", capsys.readouterr().out)
    for place, question in enumerate(asked, start=1):
        why = next(answer.reply for answer in question.answers if answer.right)
        assert re.sub(r"\s", "", f"第 {place} 题：正确。{why}") in said
    monkeypatch.setenv("TINYFLAMINGO_LANGUAGE", "en")
    english = quiz.questions(number)
    assert [[a.right for a in q.answers] for q in asked] == [[a.right for a in q.answers] for q in english]
    assert not {q.text for q in asked} & {q.text for q in english}


def test_no_line_of_a_chinese_question_begins_with_a_mark(chinese):
    assert quiz._wrapped("1. ", "字" * 47 + "。" + "字" * 9).splitlines() == ["1. " + "字" * 46, "   字。" + "字" * 9]


def test_the_quizzes_are_exported_in_chinese(chinese, tmp_path):
    path = tmp_path / "out.gift"
    assert cli.main(["class", "quiz", str(path)]) == 0
    lines = path.read_text(encoding="utf-8").splitlines()
    assert "$CATEGORY: tinyflamingo/07 掩码：哪个词可以看哪张图" in lines
    assert "  ~什么也看不到：结果是 NaN。#填负无穷才会这样。填 -1e9 时，错误不会报出来。" in lines
    assert sum(line.startswith("::") for line in lines) == 65
    assert all(re.search("[\u4e00-\u9fff]", line) for line in lines if line.startswith("::"))


def test_the_catalogues_of_messages_are_in_the_wheel():
    patterns = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["setuptools"][
        "package-data"
    ]
    packed = {path for pattern in patterns["tinyflamingo"] for path in (ROOT / "tinyflamingo").glob(pattern)}
    assert packed >= {*language.FOLDER.rglob("*.po")} != set()


def test_what_is_not_translated_stays_english(chinese):
    assert language._("no catalogue has this {x}") == "no catalogue has this {x}"


def test_english_reads_no_catalogue():
    code = "import sys, tinyflamingo.language as l; l._('x'); print('polib' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout == "False\n"


def rendered(markdown):
    """HTML in which the ends of lines inside a paragraph do not count. A comment that begins a line would end it."""
    markdown = re.sub(r"(?<=\S)\n(?=<!-- generated: \w+ -->\S)", " ", markdown)
    return " ".join(MarkdownIt("commonmark").enable("table").render(markdown).split())


def test_cutting_a_text_keeps_its_structure(translate, monkeypatch):
    """Every text of the project, cut into pieces and joined again without a translation, looks as before."""
    monkeypatch.setattr(translate, "_moved", lambda link, old, new: link)
    texts = [path.read_text(encoding="utf-8") for path in translate.editions() if path.suffix == ".md"]
    cells = [cell for source in translate.build.sources() for cell in translate.build.read_source(source).cells]
    texts += [cell.source for cell in cells if cell.cell_type == "markdown"]
    assert len(texts) > 300
    for text in texts:
        assert rendered(translate.translated(text, {}, ROOT, ROOT)) == rendered(text)


@pytest.mark.parametrize(
    "fails, said",
    [
        (lambda: core.holds(False, "a hint"), "提示"),
        (
            lambda: core.shape_is(1, (2,), "(one, D)", "my result", "a hint"),
            "“结果”的形状是 ()，应为 (一, D) = (2,)。提示",
        ),
        (lambda: core.value_is(1, 2, "a hint", "my result"), "“结果”是 1，应为 2。提示"),
        (lambda: core.value_is(1.0, 2.0, what="my result", mistakes={"a hint": 1.0}), "“结果”是 1，应为 2。提示"),
        (lambda: core.value_is(float("nan"), 2.0, "a hint", "my result"), "“结果”中有 NaN。提示"),
    ],
)
def test_the_tools_of_checks_translate_what_they_are_given(chinese, monkeypatch, fails, said):
    words = {**language._catalogue(), "a hint": "提示", "my result": "结果", "(one, D)": "(一, D)"}
    monkeypatch.setattr(language, "_catalogue", lambda: words)
    with pytest.raises(core.CheckFailed) as failed:
        fails()
    assert str(failed.value) == said


def test_a_fuzzy_or_empty_entry_is_not_shown(monkeypatch, tmp_path):
    (tmp_path / "zh_CN").mkdir()
    file = polib.POFile()
    file += [entry("one", "一"), entry("two", "二", flags=["fuzzy"]), entry("three", "")]
    file.save(str(tmp_path / "zh_CN" / "a.po"))
    monkeypatch.setattr(language, "FOLDER", tmp_path)
    assert language._catalogue.__wrapped__() == {"one": "一"}
