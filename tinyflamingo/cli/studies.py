"""The commands for studies and for other models: `ablate`, `report`, `bench`, `params`, `convert`, `parity`.

Not here: what they do (`studies/`, `bench/`, `interop/`).
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import tinyflamingo
from tinyflamingo.cli.arguments import FIGURES, json_target, path, whole, writable, write_json
from tinyflamingo.errors import UserError
from tinyflamingo.files import write_atomically
from tinyflamingo.language import _

BLAS_SETTINGS = ("OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE")
ABLATIONS = Path("runs/ablate/ablations.json")


def add(commands) -> None:
    """Add the commands of this file."""
    _add_ablate(commands)
    _add_report(commands)
    _add_bench(commands)
    _add_params(commands)
    _add_convert(commands)
    _add_parity(commands)


def _add_ablate(commands):
    p = commands.add_parser("ablate", help="the ablations of the paper in short runs, and studies (--only)")
    p.add_argument("--only", action="append", metavar="NAME", help="only this row or study (may be repeated)")
    p.add_argument("--seeds", type=whole, default=3, help="runs of each row (default: 3)")
    p.add_argument("--steps", type=whole, help="steps of stage three for each row (default: 200)")
    p.add_argument("--json", type=path, metavar="FILE", help=f"results; those in it are not run again ({ABLATIONS})")
    p.add_argument("--checkpoint", type=path, help="folder with the frozen parts (default: the shipped checkpoint)")
    p.set_defaults(run=_ablate)


def _ablate(args):
    from tinyflamingo.studies.run import run_studies

    if args.seeds < 1 or args.steps == 0:
        raise UserError("--seeds and --steps must be at least 1")
    target = json_target(args.json) or ABLATIONS
    run_studies(tinyflamingo.load(args.checkpoint), target, args.only, args.seeds, args.steps)


def _add_report(commands):
    p = commands.add_parser("report", help="write results and figures of runs as Markdown")
    p.add_argument("runs", nargs="+", type=path, metavar="RUN", help="folder of a run, or a JSON file")
    p.add_argument(
        "--out",
        type=path,
        default=Path("report.md"),
        help="Markdown file (default: report.md); figures go to figures/ beside it",
    )
    p.add_argument("--quick", action="store_true", help="only text, no figures")
    p.set_defaults(run=_report)


def _report(args):
    from tinyflamingo.studies.report import report

    report(args.runs, writable(args.out, ".md"), args.quick)


def _add_bench(commands):
    p = commands.add_parser("bench", help="times, compared with PyTorch if it is installed")
    p.add_argument("--json", type=path, metavar="FILE", help="write the times to this file")
    p.add_argument("--only", action="append", metavar="NAME", help="only this line (may be repeated)")
    p.add_argument("--threads", type=whole, action="append", help="threads (may be repeated; default: 1 and 2)")
    p.add_argument("--figure", type=path, metavar="FILE", help="also measure how costs grow, and draw it in this file")
    p.set_defaults(run=_bench)


def _bench(args):
    for name in BLAS_SETTINGS:  # NumPy is imported below, and reads them only then
        if os.environ.pop(name, None) is not None:
            print(
                _(f"{name} is ignored: the benchmark runs with the matrix products that NumPy chooses for this machine")
            )
    from tinyflamingo.bench.run import bench

    target, figure = json_target(args.json), args.figure and writable(args.figure, *FIGURES)

    bench(args.only, args.threads, figure, keep=lambda report: write_json(target, report))


def _add_params(commands):
    p = commands.add_parser("params", help="parameters of each part of a preset or of a model in the paper")
    p.add_argument("preset", help="toy, smoke, flamingo-3b, flamingo-80b, nfnet-f6, clip-vit-l14, chinchilla-70b ...")
    p.add_argument("--costs", action="store_true", help="also flops, memory, and times at the rate of this machine")
    p.add_argument("--json", type=path, metavar="FILE", help="write the counts to this file")
    p.set_defaults(run=_params)


def _params(args):
    from tinyflamingo.bench.flops import gemm_rate
    from tinyflamingo.bench.sizes import find_model, format_sizes, sizes

    target = json_target(args.json)
    find_model(args.preset)  # an unknown name is an error before anything is measured
    report = sizes(args.preset, gemm_rate() * 1e9 if args.costs else None)
    print(format_sizes(report))
    write_json(target, report)


def _add_convert(commands):
    p = commands.add_parser("convert", help="convert weights from and to the public ports of Flamingo")
    p.add_argument("files", nargs="+", type=path, help="files or folders of a port, or a checkpoint or part of ours")
    p.add_argument("--from", dest="source", metavar="PEER", help="port that wrote the files (default: ours)")
    p.add_argument("--to", nargs="+", required=True, metavar="OUT", help="OUT: path of our file; PEER OUT: for a port")
    p.add_argument("--prefix", default="", help="prefix of the names in the port, to read or write one part")
    p.add_argument("--head-size", type=whole, default=64, help="size of a head in the port (default: 64)")
    p.add_argument("--config", type=path, help="config.json of the decoder (default: beside the weights)")
    p.add_argument("--tokenizer", type=path, help="tokenizer.json of the decoder (default: beside the weights)")
    p.set_defaults(run=_convert)


def _convert(args):
    from tinyflamingo.interop.convert import Options, convert_from, convert_to

    *peer, out = args.to
    if len(peer) != (args.source is None):
        raise UserError("write 'convert --from PEER FILE ... --to OUT', or 'convert CHECKPOINT --to PEER OUT'")
    options = Options(args.prefix, args.head_size, args.config, args.tokenizer)
    if args.source:
        print(convert_from(args.source, args.files, writable(Path(out), folder=True), options))
    elif len(args.files) == 1:
        print(convert_to(peer[0], args.files[0], writable(Path(out)), options))
    else:
        raise UserError(f"--to {peer[0]} takes one checkpoint or part, but {len(args.files)} were given")


def _add_parity(commands):
    p = commands.add_parser("parity", help="compare our outputs with those of the installed public ports")
    p.add_argument("--out", type=path, metavar="FILE", help="write the report to this file")
    p.set_defaults(run=_parity)


def _parity(args):

    target = args.out and writable(args.out, ".md")
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
