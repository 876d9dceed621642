"""The command `train`.

Not here: the training itself (`training/run.py`).
"""

from __future__ import annotations

from pathlib import Path

from tinyflamingo.cli.arguments import fraction, path, place, whole
from tinyflamingo.errors import UserError
from tinyflamingo.language import _

NAMES = {"en": "emoji", "zh": "emoji-zh"}  # {language of the names of emoji: its preset}


def add(commands) -> None:
    """Add the command."""
    p = commands.add_parser("train", help="all three stages, evaluation, checkpoint")
    p.add_argument(
        "--preset", help="toy (the default), no-tasks, quick (about 2 minutes), smoke (seconds), omniglot or emoji"
    )
    p.add_argument("--language", choices=tuple(NAMES), help="of the names that --preset emoji learns (default: en)")
    p.add_argument("--out", type=path, help="folder of the run (default: runs/PRESET)")
    p.add_argument("--seed", type=whole, help="default: 0, or the seed of the resumed run")
    p.add_argument("--resume", action="store_true", help="continue the run in --out after any stop")
    own = p.add_argument_group("your own data (check them first with 'data check')")
    own.add_argument(
        "--data", type=path, metavar="PATH", help="a folder with captions.jsonl, or a file or folder of a known format"
    )
    words = "go on from a checkpoint, a folder or 'toy' (the shipped one): only stage three trains"
    own.add_argument("--from", dest="start", type=place, metavar="CHECKPOINT", help=words)
    own.add_argument("--format", metavar="NAME", help="format of the data (default: detected)")
    words = "share of these data beside TinyWorld (default: 1; with --from 0.7 if the checkpoint knows TinyWorld)"
    own.add_argument("--mix", type=fraction, metavar="SHARE", help=words)
    own.add_argument(
        "--steps", type=whole, metavar="N", help="steps of stage three (default: by the number of records)"
    )
    words = "what is held out as a whole: picture (default), group, class, or nothing"
    own.add_argument("--hold-out", metavar="UNIT", help=words)
    own.add_argument(
        "--test", type=place, metavar="PATH", help="a separate test set for the scores; then nothing is held out"
    )
    own.add_argument("--augment", metavar="on|off", help="stage one: turn, scale, shift, recolour (default: on)")
    own.add_argument("--fps", type=float, metavar="N", help="frames for each second of a video (default: 1)")
    own.add_argument("--side", type=whole, metavar="N", help="pictures are resized to N x N pixels")
    own.add_argument("--vocab", type=whole, metavar="N", help="size of the tokenizer, which is trained on the text")
    own.add_argument("--context", type=whole, metavar="N", help="largest number of tokens of a document in training")
    own.add_argument("--allow-bad", type=fraction, metavar="SHARE", help="largest share of bad records (0.05)")
    p.set_defaults(run=_train)


def _train(args):
    from tinyflamingo.evaluation.run import format_report
    from tinyflamingo.system import number
    from tinyflamingo.training.ranks import together, world
    from tinyflamingo.training.run import train

    args.preset = _in_language(args.preset, args.language)
    preset = args.preset or _preset_on_disk(args)
    own = _own_data(args, preset)
    out = args.out or Path("runs") / ("own" if own else args.preset or "toy")
    _require_other_folder(out, args.data, args.test)
    source, ending = _source(args, preset, own, out)
    with together():
        model = train(preset or source.preset, out, args.seed, args.resume, ending, source)
    if world().rank > 0:
        return
    print(format_report(model.info["metrics"]))
    times = ", ".join(f"{name} {seconds:.0f}" for name, seconds in model.info["stages"].items())
    print(_(f"seconds: {times}; peak memory {number(model.info['peak_memory_mb'], 'MB')}"))
    print(_(f"checkpoint, log, figures and metrics.json are in {out}"))


def _require_other_folder(out, *data):
    """`UserError` if the run would be written among the user's own files."""
    from tinyflamingo.data.readers import root_of

    for given in map(Path, filter(None, data)):
        folders = {root_of(given).resolve(), (given if given.is_dir() else given.parent).resolve()}
        if given.exists() and out.resolve() in folders:
            raise UserError(f"--out {out} is the folder of your data: choose another one, such as {out / 'run'}")


def _in_language(preset, language):
    """The preset whose names are in a language. `UserError` for a preset without names, or with those of another."""
    named = NAMES[language] if language else preset
    if preset not in (named, "emoji"):
        raise UserError("--language is of the names that --preset emoji learns: add --preset emoji, or remove it")
    return named


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
