"""The commands that ask a model questions: `evaluate`, `calibrate`.

Not here: the questions (`evaluation/`, `own_data/`, `emoji/`, `handwriting/`).
"""

from __future__ import annotations

import tinyflamingo
from tinyflamingo.cli.arguments import fraction, json_target, path, place, whole, write_json
from tinyflamingo.errors import UserError
from tinyflamingo.language import _

QUERIES = 500  # queries for each task of `evaluate`
MOST_QUERIES = 20_000  # so that time and memory stay bounded


def add(commands) -> None:
    """Add the commands of this file."""
    _add_evaluate(commands)
    _add_calibrate(commands)


def _add_evaluate(commands):
    p = commands.add_parser("evaluate", help="scores of every task on new pictures, with intervals")
    p.add_argument("--checkpoint", type=path, help="folder (default: the shipped checkpoint)")
    p.add_argument("--json", type=path, metavar="FILE", help="write the report to this file")
    p.add_argument("--seed", type=whole, default=0, help="selects the test pictures (default: 0)")
    p.add_argument("--queries", type=whole, help=f"queries for each task (default: {QUERIES})")
    p.add_argument(
        "--task", action="append", help="only this task (may be repeated); omniglot needs --runs, emoji --data"
    )
    p.add_argument("--suite", action="store_true", help="32 tasks with 0 to 32 shots, and specialists")
    p.add_argument("--quick", action="store_true", help="with --suite: a small part that takes minutes")
    p.add_argument("--runs", type=path, metavar="ZIP", help="for --task omniglot: all_runs.zip of the data set")
    words = "your own data, of which the records that are held out in training are asked (default: those of the run)"
    p.add_argument("--data", type=place, metavar="PATH", help=words)
    p.add_argument("--test", type=place, metavar="PATH", help="your own data: all records of this test set are asked")
    words = "your own data: numbers of examples in the prompt (default: 0)"
    p.add_argument("--shots", type=whole, nargs="+", metavar="K", help=words)
    p.set_defaults(run=_evaluate)


def _evaluate(args):
    from tinyflamingo.evaluation.run import format_report

    omniglot, emoji = (name in (args.task or ()) for name in ("omniglot", "emoji"))
    _check_evaluate(args, omniglot, emoji)
    target = json_target(args.json)
    text_of = format_report
    if emoji:
        report = _evaluate_emoji(args)
    elif omniglot:
        report = _evaluate_runs(args)
    elif args.suite:
        from tinyflamingo.evaluation.suite_run import format_suite, run_suite

        report, text_of = run_suite(tinyflamingo.load(args.checkpoint), args.seed, args.task, args.quick), format_suite
    else:
        report = _evaluate_tasks(args, tinyflamingo.load(args.checkpoint))
    report["checkpoint"] = str(args.checkpoint or "the shipped checkpoint")
    write_json(target, report)  # before the lines, which a closed stdout refuses
    print(text_of(report))


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
    if args.runs and not omniglot:
        raise UserError("--runs belongs to --task omniglot: add it, or remove --runs")
    if emoji and (args.task != ["emoji"] or not args.data or args.test or args.shots or args.suite or omniglot):
        raise UserError(
            "--task emoji and --data DIR belong together, without another task, --test, --shots and --suite"
        )
    if not emoji and (args.data or args.test or args.shots) and (args.suite or omniglot or args.task):
        raise UserError("--data, --test and --shots are for your own data: remove --suite, --task and --runs")
    if args.queries is not None and not 1 <= args.queries <= MOST_QUERIES:
        raise UserError(f"--queries is {args.queries} but must be from 1 to {MOST_QUERIES}")
    if args.quick and not args.suite:
        raise UserError("--quick needs --suite: add --suite, or remove --quick")
    if args.suite and omniglot:
        raise UserError("--suite does not contain omniglot: remove --suite, or remove --task omniglot")
    if args.queries and (args.suite or omniglot):
        raise UserError(f"--queries has no effect with {'--suite' if args.suite else '--task omniglot'}: remove it")


def _evaluate_emoji(args):
    from tinyflamingo.emoji.scores import emoji_report

    model = tinyflamingo.load(args.checkpoint)
    return {"tasks": {}} | emoji_report(model, args.data, args.queries or QUERIES, args.seed)


def _evaluate_runs(args):
    from tinyflamingo.handwriting.omniglot import read_runs
    from tinyflamingo.handwriting.one_shot import evaluate_runs

    if args.task != ["omniglot"] or not args.runs:
        raise UserError("--task omniglot and --runs ZIP belong together, without another --task")
    return evaluate_runs(tinyflamingo.load(args.checkpoint), read_runs(args.runs), args.seed)


def _add_calibrate(commands):
    words = "find the probability that most answers reach: `complete` then says when an answer is below it"
    p = commands.add_parser("calibrate", help=words)
    p.add_argument("--checkpoint", type=path, help="folder; its card gets the threshold (default: the shipped one)")
    p.add_argument(
        "--data", type=place, metavar="PATH", help="your own data, if the run beside the checkpoint does not have them"
    )
    p.add_argument("--test", type=place, metavar="PATH", help="your own data: a test set, all of which is asked")
    words = "other pictures, to count how many are noticed: a folder of pictures, or data as for --data"
    p.add_argument("--unlike", type=place, metavar="PATH", help=words)
    words = "share of the answers about held-out pictures that reach the threshold (default: 0.95)"
    p.add_argument("--kept", type=fraction, default=0.95, metavar="SHARE", help=words)
    p.add_argument("--json", type=path, metavar="FILE", help="write the report to this file")
    p.set_defaults(run=_calibrate)


def _calibrate(args):
    from tinyflamingo.checkpoint import shipped_checkpoint
    from tinyflamingo.own_data.calibrate import calibrate, describe

    target, folder = json_target(args.json), args.checkpoint or shipped_checkpoint()
    report = calibrate(tinyflamingo.load(args.checkpoint), folder, args.data, args.test, args.unlike, args.kept)
    write_json(target, report)
    print(describe(report))
    print(_(f"the threshold is written to the card of {folder}"))
