"""Tools beside the model: `data`, `class`, `docs`, `doctor`.

Not here: what they do (`data/readers/`, `classroom/`, `doctor.py`).
"""

from __future__ import annotations

from pathlib import Path

import tinyflamingo
from tinyflamingo.cli.arguments import fraction, path, whole, writable
from tinyflamingo.errors import UserError
from tinyflamingo.files import write_atomically
from tinyflamingo.language import _, is_chinese

SITE = Path(tinyflamingo.__file__).parents[1] / "docs" / "site" / "html"


def add(commands) -> None:
    """Add the commands of this file."""
    _add_data(commands)
    _add_class(commands)
    _add_docs(commands)
    _add_doctor(commands)


def _add_data(commands):
    p = commands.add_parser("data", help="check your own data before training")
    p.add_argument("action", choices=["check"], help="print what is found, and what is skipped and why")
    p.add_argument("path", type=path, help="a folder with captions.jsonl, or a file or folder of a known format")
    p.add_argument("--format", metavar="NAME", help="format of the data (default: detected)")
    p.add_argument("--sheet", type=path, metavar="FILE", help="draw a contact sheet in this file (PNG)")
    p.add_argument("--allow-bad", type=fraction, default=0.05, metavar="SHARE", help="largest share of bad records")
    p.add_argument("--side", type=whole, metavar="N", help="side of a picture for the model in pixels (default: 32)")
    p.add_argument("--fps", type=float, default=1.0, metavar="N", help="frames for each second of a video (default: 1)")
    p.set_defaults(run=_data_check)


def _data_check(args):
    from tinyflamingo.data.readers.check import SIDE, check_data
    from tinyflamingo.own_data.options import OwnData, about_texts

    own = OwnData(str(args.path), side=args.side, fps=args.fps)
    sheet = args.sheet and _sheet(args.sheet, args.path)
    for line in check_data(args.path, args.format, sheet, args.allow_bad, own.side or SIDE, own.fps, about_texts):
        print(line)


def _sheet(target, data):
    """The file of a contact sheet. It replaces no file of the data."""
    if target.exists() and target.resolve().is_relative_to(data.resolve()):
        raise UserError(f"cannot write {target}: it is a file of the data; choose another name for the sheet")
    return writable(target, ".png")


def _add_class(commands):
    p = commands.add_parser("class", help="for teachers: the zip for students, marks of what they hand in, a quiz")
    words = "write the zip; run handed-in notebooks, with your rights; write the quizzes in the format GIFT"
    p.add_argument("action", choices=["pack", "grade", "quiz"], help=words)
    words = "the zip to write; the folder of notebooks; the file to write"
    p.add_argument("path", type=path, metavar="OUT.zip | FOLDER | OUT.gift", help=words)
    p.add_argument("--csv", action="store_true", help="grade: print lines of file, exercise, result, hint")
    p.add_argument("--seconds", type=whole, default=30, metavar="N", help="grade: limit for one exercise (default: 30)")
    p.set_defaults(run=_class)


def _class(args):
    from tinyflamingo.classroom import grade, pack, quiz

    if args.action == "pack":
        files = pack.pack(writable(args.path, ".zip"))
        print(_(f"{args.path}: {files} files"))
        return
    if args.action == "quiz":
        write_atomically(writable(args.path, ".gift", ".txt"), "\n".join(quiz.gift()).encode())
        print(_(f"{args.path}: the quizzes of {len(quiz.numbers())} notebooks"))
        return
    for line in (grade.csv_lines if args.csv else grade.text_lines)(grade.grade(args.path, args.seconds)):
        print(line, flush=True)


def _add_docs(commands):
    p = commands.add_parser("docs", help="open the site that docs/make_site.py has built")
    p.add_argument("--language", choices=("en", "zh_CN"), help="default: the language of the system")
    p.set_defaults(run=_docs)


def _docs(args):
    import webbrowser

    language = args.language or ("zh_CN" if is_chinese() else "en")
    page = SITE / language / "index.html"
    if not page.is_file():
        raise UserError(f"there is no site in {SITE}: in a clone of the repository, run python docs/make_site.py")
    print(page)
    webbrowser.open(page.as_uri())


def _add_doctor(commands):
    p = commands.add_parser("doctor", help="versions, threads, memory, and a short self-test")
    p.set_defaults(run=_doctor)


def _doctor(args):
    from tinyflamingo.doctor import run_doctor

    run_doctor()
