"""The command line: parse, call, print. A mistake of the user gives one line on stderr and exit code 2.

Implements no section of the chapter. Each command imports its code only when it runs, so that `--help` and errors are
immediate. Not here: any mathematics.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

import tinyflamingo
from tinyflamingo import __version__
from tinyflamingo.errors import SafeStderr, UserError, complain
from tinyflamingo.files import check_name
from tinyflamingo.language import _, is_chinese, wrapped

DIGITS = 100  # longest number on the command line
QUERIES = 500  # queries for each task of `evaluate`
FIGURES = (".png", ".pdf", ".svg")
BLAS_SETTINGS = ("OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE")
ABLATIONS = Path("runs/ablate/ablations.json")
SITE = Path(tinyflamingo.__file__).parents[1] / "docs" / "site" / "html"


class _Help(argparse.HelpFormatter):
    """Help in the language of the reader."""

    def start_section(self, heading):
        super().start_section(heading and _(heading))

    def add_text(self, text):
        super().add_text(text and _(text))

    def _expand_help(self, action):
        return _(super()._expand_help(action))

    def _split_lines(self, text, width):
        return wrapped(text, width) if is_chinese() else super()._split_lines(text, width)


class _Parser(argparse.ArgumentParser):
    def __init__(self, **options):
        super().__init__(formatter_class=_Help, **options)

    def format_help(self) -> str:
        return super().format_help().replace("usage: ", _("usage: "), 1)

    def error(self, message: str) -> NoReturn:
        """Raise one line; argparse would print two."""
        raise UserError(f"{message} (see '{self.prog} --help')")


class _MixedParser(_Parser):
    """Accepts files after options too: `complete TEMPLATE --json FILE`. argparse alone refuses this."""

    mixing = False

    def parse_known_args(self, args=None, namespace=None):
        if self.mixing:  # argparse calls this method again, twice
            return super().parse_known_args(args, namespace)
        self.mixing = True
        try:
            return self.parse_known_intermixed_args(args, namespace)
        finally:
            self.mixing = False


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command. Returns the exit code: 0 on success, 2 for a mistake of the user, 130 after Ctrl-C."""
    with contextlib.redirect_stderr(SafeStderr()):
        return _run(argv)


def _run(argv) -> int:
    args = None
    try:
        _ready_stdout()
        args = _parser().parse_args(argv)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)  # NumPy's; results that are not finite are errors anyway
            args.run(args)
        sys.stdout.flush()
        return 0
    except UserError as error:
        return _complain(error)
    except BrokenPipeError:  # the reader of our output is closed; the rest of the output is thrown away
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except OSError as error:  # a full disk, a name that is too long, no permission: the user must repair it
        return _complain(f"{_(error.strerror or str(error))}{f': {error.filename}' if error.filename else ''}")
    except KeyboardInterrupt:
        again = hasattr(args, "resume")
        text = "tinyflamingo: stopped; continue a training run with --resume" if again else "tinyflamingo: stopped"
        print(_(text), file=sys.stderr)
        return 130


def _ready_stdout():
    """Print letters that the encoding of stdout lacks as escapes. A closed stdout is an error before any work."""
    if sys.stdout is None:
        raise UserError("stdout is closed, so nothing can be printed: leave it open, or redirect it to /dev/null")
    if hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(errors="backslashreplace")


def _complain(error) -> int:
    complain(error)
    return 2


def _parser():
    parser = _Parser(prog="python -m tinyflamingo", description="Flamingo by hand: train it, use it, inspect it.")
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND", parser_class=_MixedParser)
    _add_train(commands)
    _add_demo(commands)
    _add_complete(commands)
    _add_explore(commands)
    _add_evaluate(commands)
    _add_calibrate(commands)
    _add_ablate(commands)
    _add_report(commands)
    _add_bench(commands)
    _add_params(commands)
    _add_convert(commands)
    _add_parity(commands)
    _add_data(commands)
    _add_class(commands)
    _add_docs(commands)
    doctor = commands.add_parser("doctor", help="versions, threads, memory, and a short self-test")
    doctor.set_defaults(run=_doctor)
    return parser


def _whole(text):
    """A whole number >= 0."""
    if not text.isdecimal() or len(text) > DIGITS:
        raise argparse.ArgumentTypeError(f"{text[:DIGITS]!r} is not a whole number >= 0 of at most {DIGITS} digits")
    return int(text)


def _path(text):
    """A path that is not empty; it is empty if a shell variable is not set."""
    if not text:
        raise argparse.ArgumentTypeError("an empty path: is a shell variable not set?")
    return Path(text)


def _fraction(text):
    """A number from 0 to 1."""
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"{text[:DIGITS]!r} is not a number from 0 to 1")
    return value


def _writable(path, folder=False):
    """The path of a file (or folder) to write. Raises `UserError` before any work if it cannot be written."""
    check_name(path)
    if path.is_dir() and not folder:
        raise UserError(f"cannot write {path}: it is a folder")
    if path.exists() and not path.is_file() and os.access(path, os.W_OK):
        return path  # a device or a pipe
    if not path.parent.is_dir():
        raise UserError(f"cannot write {path}: its folder does not exist")
    if not os.access(path.parent, os.W_OK):
        raise UserError(f"cannot write {path}: no permission to write in its folder")
    return path


def _figure(path):
    """The path of a figure to write, with a known suffix."""
    if path.suffix not in FIGURES:
        raise UserError(f"cannot write {path}: the name of a figure must end in {', '.join(FIGURES)}")
    return path


def _add_train(commands):
    p = commands.add_parser("train", help="all three stages, evaluation, checkpoint")
    p.add_argument("--preset", help="toy (the default), quick (about 3 minutes), smoke (seconds), omniglot or emoji")
    p.add_argument("--out", type=_path, help="folder of the run (default: runs/PRESET)")
    p.add_argument("--seed", type=_whole, help="default: 0, or the seed of the resumed run")
    p.add_argument("--resume", action="store_true", help="continue the run in --out after any stop")
    own = p.add_argument_group("your own data (check them first with 'data check')")
    own.add_argument(
        "--data", type=_path, metavar="PATH", help="a folder with captions.jsonl, or a file or folder of a known format"
    )
    words = "go on from a checkpoint, a folder or 'toy' (the shipped one): only stage three trains"
    own.add_argument("--from", dest="start", metavar="CHECKPOINT", help=words)
    own.add_argument("--format", metavar="NAME", help="format of the data (default: detected)")
    words = "share of these data beside TinyWorld (default: 1; with --from 0.7 if the checkpoint knows TinyWorld)"
    own.add_argument("--mix", type=_fraction, metavar="SHARE", help=words)
    own.add_argument(
        "--steps", type=_whole, metavar="N", help="steps of stage three (default: by the number of records)"
    )
    words = "what is held out as a whole: picture (default), group, class, or nothing"
    own.add_argument("--hold-out", metavar="UNIT", help=words)
    own.add_argument("--test", metavar="PATH", help="a separate test set for the scores; then nothing is held out")
    own.add_argument("--augment", metavar="on|off", help="stage one: turn, scale, shift, recolour (default: on)")
    own.add_argument("--fps", type=float, metavar="N", help="frames for each second of a video (default: 1)")
    own.add_argument("--side", type=_whole, metavar="N", help="pictures are resized to N x N pixels")
    own.add_argument("--vocab", type=_whole, metavar="N", help="size of the tokenizer, which is trained on the text")
    own.add_argument("--context", type=_whole, metavar="N", help="largest number of tokens of a document in training")
    own.add_argument("--allow-bad", type=_fraction, metavar="SHARE", help="largest share of bad records (0.05)")
    p.set_defaults(run=_train)


def _train(args):
    from tinyflamingo.evaluation.run import format_report
    from tinyflamingo.system import number
    from tinyflamingo.training.ranks import together, world
    from tinyflamingo.training.run import train

    preset = args.preset or _preset_on_disk(args)
    own = _own_data(args, preset)
    out = args.out or Path("runs") / ("own" if own else args.preset or "toy")
    source, ending = _source(args, preset, own, out)
    with together():
        model = train(preset or source.preset, out, args.seed, args.resume, ending, source)
    if world().rank > 0:
        return
    print(format_report(model.info["metrics"]))
    times = ", ".join(f"{name} {seconds:.0f}" for name, seconds in model.info["stages"].items())
    print(_(f"seconds: {times}; peak memory {number(model.info['peak_memory_mb'], 'MB')}"))
    print(_(f"checkpoint, log, figures and metrics.json are in {out}"))


def _preset_on_disk(args):
    """The preset that the run to resume has in its folder; None if there is no such run, or the command names one."""
    from tinyflamingo.training.state import STATE, load_state

    folder = args.out or Path("runs") / ("own" if args.data else "toy")
    if args.preset or not args.resume or not (folder / STATE).exists():
        return None
    return load_state(folder)[0].preset


def _source(args, preset, own, out):
    """(data of a run, its evaluation): handwriting, emoji, the user's own data, or TinyWorld."""
    from tinyflamingo.emoji.scores import evaluator
    from tinyflamingo.emoji.stages import Emoji
    from tinyflamingo.handwriting.one_shot import validator
    from tinyflamingo.handwriting.stages import Handwriting
    from tinyflamingo.own_data.options import source_of
    from tinyflamingo.own_data.scores import evaluate_run
    from tinyflamingo.training.presets import get_preset

    recipe = get_preset(preset or "toy")
    if recipe.handwriting and args.data is not None:
        return Handwriting(args.data), validator(recipe.handwriting, args.data, out)
    if recipe.emoji and args.data is not None:
        return Emoji(args.data), evaluator(args.data, out)
    return source_of(own, out, args.resume), evaluate_run(out)


def _own_data(args, preset):
    """The options of the user's own data, or None. The archives that some presets read are not the user's own data."""
    from tinyflamingo.own_data.options import OPTIONS, own_data
    from tinyflamingo.training.presets import get_preset

    options = {name: getattr(args, name) for name in OPTIONS if getattr(args, name) is not None}
    archives = get_preset(preset or "toy").reads_archives
    own = args.data is not None and not archives
    if options and not own:
        option = {"start": "from"}.get(name := next(iter(options)), name.replace("_", "-"))
        reason = f"preset {preset!r} has its own data" if archives else "add --data PATH"
        raise UserError(f"--{option} is an option for your own data: {reason}")
    return own_data(str(args.data), args.preset, options) if own else None


def _add_demo(commands):
    p = commands.add_parser("demo", help="complete a page of prompts and draw a figure")
    p.add_argument("--checkpoint", type=_path, help="folder (default: the shipped checkpoint)")
    p.add_argument("--out", type=_path, default=Path("demo.png"), help="file of the figure (default: demo.png)")
    p.add_argument("--seed", type=_whole, default=0, help="selects the pictures (default: 0)")
    p.set_defaults(run=_demo)


def _demo(args):
    from tinyflamingo.demo import run_demo

    run_demo(_load(args.checkpoint), _writable(_figure(args.out)), args.seed)


def _add_complete(commands):
    p = commands.add_parser("complete", help="complete a prompt of text, pictures and videos")
    p.add_argument("template", help="text with <image>, <video> and <EOC> marks; one file for each <image> and <video>")
    p.add_argument("files", nargs="*", default=[], type=_path, help="pictures and videos, in the order of their marks")
    p.add_argument("--checkpoint", type=_path, help="folder (default: the shipped checkpoint)")
    p.add_argument("--json", action="store_true", help="print JSON, with tokens, log-probabilities and phi")
    p.add_argument("--max-tokens", type=_whole, default=24, help="largest number of new tokens (default: 24)")
    p.add_argument("--beams", type=_whole, default=1, help="width of the beam (the paper uses 3); 1: greedy")
    p.add_argument("--temperature", type=float, help="0: no sampling (default: 0, or 1 with --top-k or --top-p)")
    p.add_argument("--top-k", type=_whole, help="sample from the K most likely tokens; 0: all")
    p.add_argument("--top-p", type=float, help="sample from the most likely tokens with total probability P")
    p.add_argument("--seed", type=_whole, help="seed of the sampling (default: 0)")
    p.add_argument("--fps", type=float, default=1.0, metavar="N", help="frames for each second of a video (default: 1)")
    p.set_defaults(run=_complete)


def _complete(args):
    import numpy as np

    from tinyflamingo.data.prompt import read_prompt
    from tinyflamingo.decoding.beams import WIDEST
    from tinyflamingo.decoding.complete import complete
    from tinyflamingo.decoding.sampling import Sampling

    if args.max_tokens < 1:
        raise UserError("--max-tokens must be at least 1")
    if not 1 <= args.beams <= WIDEST:
        raise UserError(f"--beams is {args.beams} but must be from 1 to {WIDEST}")
    sampling = _sampling(args)
    if args.beams > 1 and sampling != Sampling():
        raise UserError("--beams searches, but --temperature, --top-k and --top-p sample: choose one")
    model = _load(args.checkpoint)
    vision = model.config.vision
    items = read_prompt(args.template, args.files, vision.side, vision.preparation, args.fps)
    answer = complete(model, items, args.max_tokens, args.beams, sampling, np.random.default_rng(args.seed or 0))
    print(_json_line(answer) if args.json else answer["text"])
    if answer["unlike"] and not args.json:
        numbers = f"probability {answer['probability']:.3f}, threshold {answer['threshold']:.3f}"
        complain(f"the picture is unlike those that the model learned from ({numbers}): do not rely on the answer")


def _sampling(args):
    """The sampling that the options select. An option without effect is refused."""
    from tinyflamingo.decoding.sampling import Sampling

    cut = args.top_k is not None or args.top_p is not None
    temperature = float(cut) if args.temperature is None else args.temperature
    top_p = 1.0 if args.top_p is None else args.top_p
    sampling = Sampling(temperature, args.top_k or 0, top_p)
    if temperature == 0 and (cut or args.seed is not None):
        option = "--seed" if not cut else "--top-k" if args.top_k is not None else "--top-p"
        raise UserError(f"{option} has no effect without sampling: give a --temperature above 0, or remove it")
    return sampling


def _json_line(report):
    """JSON with letters as they are, or with JSON's escapes if the encoding of stdout lacks one of them."""
    line = json.dumps(report, ensure_ascii=False)
    try:
        line.encode(sys.stdout.encoding or "utf-8")
    except UnicodeEncodeError:
        return json.dumps(report)
    return line


def _add_explore(commands):
    p = commands.add_parser("explore", help="masks, gates and the next word in a browser, under your hand")
    p.add_argument("--checkpoint", type=_path, help="folder (default: the shipped checkpoint)")
    p.add_argument("--out", type=_path, metavar="FILE", help="write one HTML file that needs no server, and stop")
    p.add_argument("--port", type=_whole, metavar="N", help="port on 127.0.0.1 (default: 8017); 0: any free one")
    p.add_argument("--no-browser", action="store_true", help="open no browser, only print the address")
    p.set_defaults(run=_explore)


def _explore(args):
    from tinyflamingo.explorer.build import build_page
    from tinyflamingo.explorer.server import PORT, serve
    from tinyflamingo.files import write_atomically

    def build():
        return build_page(args.checkpoint)

    if args.out is None:
        serve(build, PORT if args.port is None else args.port, not args.no_browser)
        return
    if args.port is not None or args.no_browser:
        raise UserError("--out writes a file and starts no server: remove --port and --no-browser")
    write_atomically(_writable(args.out), build())
    print(_(f"{args.out}: open it in a browser; it needs no server and no network"))


def _add_evaluate(commands):
    p = commands.add_parser("evaluate", help="scores of every task on new pictures, with intervals")
    p.add_argument("--checkpoint", type=_path, help="folder (default: the shipped checkpoint)")
    p.add_argument("--json", type=_path, metavar="FILE", help="write the report to this file")
    p.add_argument("--seed", type=_whole, default=0, help="selects the test pictures (default: 0)")
    p.add_argument("--queries", type=_whole, help=f"queries for each task (default: {QUERIES})")
    p.add_argument(
        "--task", action="append", help="only this task (may be repeated); omniglot needs --runs, emoji --data"
    )
    p.add_argument("--suite", action="store_true", help="32 tasks with 0 to 32 shots, and specialists")
    p.add_argument("--quick", action="store_true", help="with --suite: a small part that takes minutes")
    p.add_argument("--runs", type=_path, metavar="ZIP", help="for --task omniglot: all_runs.zip of the data set")
    words = "your own data, of which the records that are held out in training are asked (default: those of the run)"
    p.add_argument("--data", metavar="PATH", help=words)
    p.add_argument("--test", metavar="PATH", help="your own data: all records of this test set are asked")
    words = "your own data: numbers of examples in the prompt (default: 0)"
    p.add_argument("--shots", type=_whole, nargs="+", metavar="K", help=words)
    p.set_defaults(run=_evaluate)


def _evaluate(args):
    from tinyflamingo.evaluation.run import format_report
    from tinyflamingo.files import write_atomically

    omniglot, emoji = args.runs or "omniglot" in (args.task or ()), "emoji" in (args.task or ())
    _check_evaluate(args, omniglot, emoji)
    target = args.json and _writable(args.json)
    if emoji:
        report = _evaluate_emoji(args)
        print(format_report(report))
    elif omniglot:
        report = _evaluate_runs(args)
        print(format_report(report))
    elif args.suite:
        from tinyflamingo.evaluation.suite_run import format_suite, run_suite

        report = run_suite(_load(args.checkpoint), args.seed, args.task, args.quick)
        print(format_suite(report))
    else:
        report = _evaluate_tasks(args, _load(args.checkpoint))
        print(format_report(report))
    report["checkpoint"] = str(args.checkpoint or "the shipped checkpoint")
    if target:
        write_atomically(target, json.dumps(report, indent=1).encode())


def _evaluate_tasks(args, model):
    """The report on TinyWorld's tasks, on the user's own data, or on both, by the data of the model and the options."""
    from tinyflamingo.checkpoint import shipped_checkpoint
    from tinyflamingo.evaluation.run import evaluate
    from tinyflamingo.own_data.scores import ASKED, evaluate_own

    own, given = model.info.get("data"), args.data or args.test
    report: dict = {"tasks": {}}
    if not given and (not own or own["mix"] < 1 or args.task):
        report = evaluate(model, args.queries or QUERIES, args.seed, args.task)
    if given or (own and not args.task):
        folder, shots = args.checkpoint or shipped_checkpoint(), args.shots or (0,)
        n = args.queries or ASKED
        report |= evaluate_own(model, folder, args.data, args.test, shots, n, args.seed)
    elif args.shots:
        raise UserError("--shots counts examples of your own data: add --data PATH, or a --checkpoint of such a run")
    return report


def _check_evaluate(args, omniglot, emoji):
    """Refuse combinations in which an option has no effect."""
    if emoji and (args.task != ["emoji"] or not args.data or args.test or args.shots or args.suite or omniglot):
        raise UserError(
            "--task emoji and --data DIR belong together, without another task, --test, --shots and --suite"
        )
    if not emoji and (args.data or args.test or args.shots) and (args.suite or omniglot or args.task):
        raise UserError("--data, --test and --shots are for your own data: remove --suite, --task and --runs")
    if args.queries == 0:
        raise UserError("--queries must be at least 1")
    if args.quick and not args.suite:
        raise UserError("--quick needs --suite: add --suite, or remove --quick")
    if args.suite and omniglot:
        raise UserError("--suite does not contain omniglot: remove --suite, or remove --task omniglot and --runs")
    if args.queries and (args.suite or omniglot):
        raise UserError(f"--queries has no effect with {'--suite' if args.suite else '--task omniglot'}: remove it")


def _evaluate_emoji(args):
    from tinyflamingo.emoji.scores import emoji_report

    return {"tasks": {}} | emoji_report(_load(args.checkpoint), args.data, args.queries or QUERIES, args.seed)


def _evaluate_runs(args):
    from tinyflamingo.handwriting.omniglot import read_runs
    from tinyflamingo.handwriting.one_shot import evaluate_runs

    if args.task != ["omniglot"] or not args.runs:
        raise UserError("--task omniglot and --runs ZIP belong together, without another --task")
    return evaluate_runs(_load(args.checkpoint), read_runs(args.runs), args.seed)


def _add_calibrate(commands):
    words = "from which probability on an answer counts: `complete` then notices pictures unlike those of training"
    p = commands.add_parser("calibrate", help=words)
    p.add_argument("--checkpoint", type=_path, help="folder; its card gets the threshold (default: the shipped one)")
    p.add_argument("--data", metavar="PATH", help="your own data, if the run beside the checkpoint does not have them")
    p.add_argument("--test", metavar="PATH", help="your own data: a test set, all of which is asked")
    p.add_argument("--unlike", metavar="PATH", help="other pictures, to count how many are noticed")
    words = "share of the answers about held-out pictures that reach the threshold (default: 0.95)"
    p.add_argument("--kept", type=_fraction, default=0.95, metavar="SHARE", help=words)
    p.add_argument("--json", type=_path, metavar="FILE", help="write the report to this file")
    p.set_defaults(run=_calibrate)


def _calibrate(args):
    from tinyflamingo.checkpoint import shipped_checkpoint
    from tinyflamingo.files import write_atomically
    from tinyflamingo.own_data.calibrate import calibrate, describe

    target, folder = args.json and _writable(args.json), args.checkpoint or shipped_checkpoint()
    report = calibrate(_load(args.checkpoint), folder, args.data, args.test, args.unlike, args.kept)
    print(describe(report))
    if target:
        write_atomically(target, json.dumps(report, indent=1).encode())


def _add_ablate(commands):
    p = commands.add_parser("ablate", help="the ablations of the paper in short runs, and studies (--only)")
    p.add_argument("--only", action="append", metavar="NAME", help="only this row or study (may be repeated)")
    p.add_argument("--seeds", type=_whole, default=3, help="runs of each row (default: 3)")
    p.add_argument("--steps", type=_whole, help="steps of stage three for each row (default: 200)")
    p.add_argument("--json", type=_path, metavar="FILE", help=f"results; those in it are not run again ({ABLATIONS})")
    p.add_argument("--checkpoint", type=_path, help="folder with the frozen parts (default: the shipped checkpoint)")
    p.set_defaults(run=_ablate)


def _ablate(args):
    from tinyflamingo.studies.run import run_studies

    if args.seeds < 1 or args.steps == 0:
        raise UserError("--seeds and --steps must be at least 1")
    path = _writable(args.json) if args.json else ABLATIONS
    run_studies(_load(args.checkpoint), path, args.only, args.seeds, args.steps)


def _add_report(commands):
    p = commands.add_parser("report", help="write results and figures of runs as Markdown")
    p.add_argument("runs", nargs="+", type=_path, metavar="RUN", help="folder of a run, or a JSON file")
    p.add_argument(
        "--out",
        type=_path,
        default=Path("docs/results.md"),
        help="Markdown file; figures go to figures/ beside it",
    )
    p.add_argument("--quick", action="store_true", help="only text, no figures")
    p.set_defaults(run=_report)


def _report(args):
    from tinyflamingo.studies.report import report

    report(args.runs, _writable(args.out), args.quick)


def _add_bench(commands):
    p = commands.add_parser("bench", help="times, compared with PyTorch if it is installed")
    p.add_argument("--json", type=_path, metavar="FILE", help="write the times to this file")
    p.add_argument("--only", action="append", metavar="NAME", help="only this line (may be repeated)")
    p.add_argument("--threads", type=_whole, action="append", help="threads (may be repeated; default: 1 and 2)")
    p.add_argument("--figure", type=_path, metavar="FILE", help="also measure how costs grow, and draw it in this file")
    p.set_defaults(run=_bench)


def _bench(args):
    for name in BLAS_SETTINGS:  # NumPy is imported below, and reads them only then
        if os.environ.pop(name, None) is not None:
            print(
                _(f"{name} is ignored: the benchmark runs with the matrix products that NumPy chooses for this machine")
            )
    from tinyflamingo.bench.run import bench
    from tinyflamingo.files import write_atomically

    target, figure = args.json and _writable(args.json), args.figure and _writable(_figure(args.figure))

    def keep(report):
        if target:
            write_atomically(target, json.dumps(report, indent=1).encode())

    bench(args.only, args.threads, figure, keep=keep)


def _add_params(commands):
    p = commands.add_parser("params", help="parameters of each part of a preset or of a model in the paper")
    p.add_argument("preset", help="toy, smoke, flamingo-3b, flamingo-80b, nfnet-f6, clip-vit-l14, chinchilla-70b ...")
    p.add_argument("--costs", action="store_true", help="also flops, memory, and times at the rate of this machine")
    p.add_argument("--json", type=_path, metavar="FILE", help="write the counts to this file")
    p.set_defaults(run=_params)


def _params(args):
    from tinyflamingo.bench.flops import gemm_rate
    from tinyflamingo.bench.sizes import find_model, format_sizes, sizes
    from tinyflamingo.files import write_atomically

    target = args.json and _writable(args.json)
    find_model(args.preset)  # an unknown name is an error before anything is measured
    report = sizes(args.preset, gemm_rate() * 1e9 if args.costs else None)
    print(format_sizes(report))
    if target:
        write_atomically(target, json.dumps(report, indent=1).encode())


def _add_convert(commands):
    p = commands.add_parser("convert", help="convert weights from and to the public ports of Flamingo")
    p.add_argument("files", nargs="+", type=_path, help="files or folders of a port, or a checkpoint or part of ours")
    p.add_argument("--from", dest="source", metavar="PEER", help="port that wrote the files (default: ours)")
    p.add_argument("--to", nargs="+", required=True, metavar="OUT", help="OUT: path of our file; PEER OUT: for a port")
    p.add_argument("--prefix", default="", help="prefix of the names in the port, to read or write one part")
    p.add_argument("--head-size", type=_whole, default=64, help="size of a head in the port (default: 64)")
    p.add_argument("--config", type=_path, help="config.json of the decoder (default: beside the weights)")
    p.add_argument("--tokenizer", type=_path, help="tokenizer.json of the decoder (default: beside the weights)")
    p.set_defaults(run=_convert)


def _convert(args):
    from tinyflamingo.interop.convert import Options, convert_from, convert_to

    *peer, out = args.to
    if len(peer) != (args.source is None):
        raise UserError("write 'convert --from PEER FILE ... --to OUT', or 'convert CHECKPOINT --to PEER OUT'")
    options = Options(args.prefix, args.head_size, args.config, args.tokenizer)
    if args.source:
        print(convert_from(args.source, args.files, _writable(Path(out), folder=True), options))
    elif len(args.files) == 1:
        print(convert_to(peer[0], args.files[0], _writable(Path(out)), options))
    else:
        raise UserError(f"--to {peer[0]} takes one checkpoint or part, but {len(args.files)} were given")


def _add_parity(commands):
    p = commands.add_parser("parity", help="compare our outputs with those of the installed public ports")
    p.add_argument("--out", type=_path, metavar="FILE", help="write the report to this file")
    p.set_defaults(run=_parity)


def _parity(args):
    from tinyflamingo.files import write_atomically

    target = args.out and _writable(args.out)
    report = _parity_report()
    print(report, end="")
    if target:
        write_atomically(target, report.encode())


def _parity_report() -> str:
    """The report of the tests that compare with the ports. They are in the repository, not in the package."""
    tests = Path(tinyflamingo.__file__).parents[1] / "tests" / "interop"
    if not (tests / "parity_report.py").is_file():
        raise UserError("parity runs tests of the repository: run it in a clone of the repository")
    sys.path[:0] = [str(tests), str(tests.parent)]
    from parity_report import parity_report

    return parity_report()


def _add_data(commands):
    p = commands.add_parser("data", help="check your own data before training")
    p.add_argument("action", choices=["check"], help="print what is found, and what is skipped and why")
    p.add_argument("path", type=_path, help="a folder with captions.jsonl, or a file or folder of a known format")
    p.add_argument("--format", metavar="NAME", help="format of the data (default: detected)")
    p.add_argument("--sheet", type=_path, metavar="FILE", help="draw a contact sheet in this file (PNG)")
    p.add_argument("--allow-bad", type=_fraction, default=0.05, metavar="SHARE", help="largest share of bad records")
    p.add_argument("--side", type=_whole, metavar="N", help="side of a picture for the model in pixels (default: 32)")
    p.add_argument("--fps", type=float, default=1.0, metavar="N", help="frames for each second of a video (default: 1)")
    p.set_defaults(run=_data_check)


def _data_check(args):
    from tinyflamingo.data.readers.check import SIDE, check_data
    from tinyflamingo.model.tokenizer import least_pieces
    from tinyflamingo.own_data.options import OwnData

    if args.sheet and args.sheet.suffix != ".png":
        raise UserError(f"cannot write {args.sheet}: the name of a contact sheet must end in .png")
    own = OwnData(str(args.path), side=args.side, fps=args.fps)
    sheet = args.sheet and _writable(args.sheet)
    for line in check_data(args.path, args.format, sheet, args.allow_bad, own.side or SIDE, own.fps, least_pieces):
        print(line)


def _add_class(commands):
    p = commands.add_parser("class", help="for teachers: the zip for students, marks of what they hand in, a quiz")
    words = "write the zip; run handed-in notebooks, with your rights; write the quizzes in the format GIFT"
    p.add_argument("action", choices=["pack", "grade", "quiz"], help=words)
    words = "the zip to write; the folder of notebooks; the file to write"
    p.add_argument("path", type=_path, metavar="OUT.zip | FOLDER | OUT.gift", help=words)
    p.add_argument("--csv", action="store_true", help="grade: print lines of file, exercise, result, hint")
    p.add_argument(
        "--seconds", type=_whole, default=30, metavar="N", help="grade: limit for one exercise (default: 30)"
    )
    p.set_defaults(run=_class)


def _class(args):
    from tinyflamingo.classroom import grade, pack, quiz
    from tinyflamingo.files import write_atomically

    if args.action == "pack":
        print(_(f"{args.path}: {pack.pack(_writable(args.path))} files"))
        return
    if args.action == "quiz":
        write_atomically(_writable(args.path), "\n".join(quiz.gift()).encode())
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


def _doctor(args):
    from tinyflamingo.doctor import run_doctor

    run_doctor()


def _load(folder):
    return tinyflamingo.load(folder)
