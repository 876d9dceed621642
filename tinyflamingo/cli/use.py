"""The commands that use a model: `demo`, `complete`, `explore`.

Not here: what they do (`demo.py`, `decoding/`, `explorer/`).
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import tinyflamingo
from tinyflamingo.cli.arguments import FIGURES, path, whole, writable
from tinyflamingo.errors import UserError, complain
from tinyflamingo.files import write_atomically
from tinyflamingo.language import _


def add(commands) -> None:
    """Add the commands of this file."""
    _add_demo(commands)
    _add_complete(commands)
    _add_explore(commands)


def _add_demo(commands):
    p = commands.add_parser("demo", help="complete a page of prompts and draw a figure")
    p.add_argument("--checkpoint", type=path, help="folder (default: the shipped checkpoint)")
    p.add_argument("--out", type=path, default=Path("demo.png"), help="file of the figure (default: demo.png)")
    p.add_argument("--seed", type=whole, default=0, help="selects the pictures (default: 0)")
    p.set_defaults(run=_demo)


def _demo(args):
    from tinyflamingo.demo import run_demo

    run_demo(tinyflamingo.load(args.checkpoint), writable(args.out, *FIGURES), args.seed)


def _add_complete(commands):
    p = commands.add_parser("complete", help="complete a prompt of text, pictures and videos")
    p.add_argument("template", help="text with <image>, <video> and <EOC> marks; one file for each <image> and <video>")
    p.add_argument("files", nargs="*", default=[], type=path, help="pictures and videos, in the order of their marks")
    p.add_argument("--checkpoint", type=path, help="folder (default: the shipped checkpoint)")
    p.add_argument("--json", action="store_true", help="print JSON, with tokens, log-probabilities and phi")
    p.add_argument("--max-tokens", type=whole, default=24, help="largest number of new tokens (default: 24)")
    p.add_argument("--beams", type=whole, default=1, help="width of the beam (the paper uses 3); 1: greedy")
    p.add_argument("--temperature", type=float, help="0: no sampling (default: 0, or 1 with --top-k or --top-p)")
    p.add_argument("--top-k", type=whole, help="sample from the K most likely tokens; 0: all")
    p.add_argument("--top-p", type=float, help="sample from the most likely tokens with total probability P")
    p.add_argument("--seed", type=whole, help="seed of the sampling (default: 0)")
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
    model = tinyflamingo.load(args.checkpoint)
    vision = model.config.vision
    items = read_prompt(args.template, args.files, vision.side, vision.preparation, args.fps)
    answer = complete(model, items, args.max_tokens, args.beams, sampling, np.random.default_rng(args.seed or 0))
    print(_json_line(answer) if args.json else answer["text"])
    if args.json:
        return
    if not answer["finished"]:
        complain(f"the answer is not finished after {args.max_tokens} tokens: give a larger --max-tokens")
    if answer["unlike"]:
        numbers = f"probability {answer['probability']:.3f}, threshold {answer['threshold']:.3f}"
        complain(f"the picture may be unlike those that the model learned from ({numbers}): do not rely on the answer")


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
    p = commands.add_parser("explore", help="a page in the browser: masks, gates and the next word, for you to change")
    p.add_argument("--checkpoint", type=path, help="folder (default: the shipped checkpoint)")
    p.add_argument("--out", type=path, metavar="FILE", help="write one HTML file that needs no server, and stop")
    p.add_argument("--port", type=whole, metavar="N", help="port on 127.0.0.1 (default: 8017); 0: any free one")
    p.add_argument("--no-browser", action="store_true", help="open no browser, only print the address")
    p.set_defaults(run=_explore)


def _explore(args):
    from tinyflamingo.explorer.build import build_page
    from tinyflamingo.explorer.server import PORT, serve

    def build():
        return build_page(args.checkpoint)

    if args.out is None:
        serve(build, PORT if args.port is None else args.port, not args.no_browser)
        return
    if args.port is not None or args.no_browser:
        raise UserError("--out writes a file and starts no server: remove --port and --no-browser")
    write_atomically(writable(args.out, ".html"), build())
    print(_(f"{args.out}: open it in a browser; it needs no server and no network"))
