"""One HTML file that holds everything: the page, its scripts, and the weights of a checkpoint.

The file works by double click, without a server and without the network. `flamingo.js` computes the chapter's model in
it, section by section as `one_file.py` does. Matrices are packed as float16, with the checksum of the checkpoint.

Serves chapter §1 to §5. Not here: the forward pass (`flamingo.js`), the views (the other files of this folder), and
the server (`server.py`).
"""

from __future__ import annotations

import base64
import json
import os
import re
from pathlib import Path
from typing import Any

import numpy as np
import sentencepiece

import tinyflamingo
from tinyflamingo.array_files import not_finite
from tinyflamingo.checkpoint import CARD, find_checkpoint, load_checkpoint, shipped_checkpoint
from tinyflamingo.errors import UserError
from tinyflamingo.model.flamingo import TrainedFlamingo
from tinyflamingo.ops.tree import named_leaves
from tinyflamingo.training.state import LOG, read_log
from tinyflamingo.variants.registry import config_to_dict

SOURCES = Path(__file__).parent
SHIPPED_LOG = SOURCES.parents[1] / "docs" / "results" / "toy"  # the log of the shipped checkpoint, in a clone
KINDS = {  # the forms that flamingo.js computes
    "vision": ("nf_resnet",),
    "resampler": ("perceiver",),
    "language": ("chinchilla",),
    "xattn": ("gated", "placed"),
}
UNUSED = "frozen/contrastive/"  # arrays of stage one that a completion does not need
NORMAL, UNKNOWN, CONTROL, BYTE = 1, 2, 3, 6  # types of pieces, as SentencePiece numbers them
INFO = ("preset", "command", "seed", "metrics")  # what the page shows of a checkpoint's card
MOMENTS = 75  # most moments of a run at which the gates are kept
# The browser itself refuses every request to another host, whatever the scripts do.
POLICY = (
    "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; script-src 'unsafe-inline'; "
    "style-src 'unsafe-inline'; img-src data: blob:; media-src blob:; base-uri 'none'; form-action 'none'\">"
)


def build_page(folder: str | os.PathLike | None = None, dtype: str = "float16") -> bytes:
    """The page for the checkpoint in `folder` (of a checkpoint or of a run; default: the shipped one), in UTF-8.

    dtype: "float16", or "float32" for the tests, which need all digits.

    Raises `UserError` for a checkpoint that does not load, and for one whose model the page cannot compute.
    """
    data = json.dumps(pack(folder, dtype), separators=(",", ":")).replace("<", "\\u003c")
    made = {"weights.js": f"window.TINYFLAMINGO = {data};\n"}

    def source(name):
        return made.get(name) or (SOURCES / name).read_text(encoding="utf-8")

    page = source("index.html").replace("<head>", f"<head>\n{POLICY}", 1)
    page = re.sub(r'<link rel="stylesheet" href="([\w.]+)">', lambda m: f"<style>\n{source(m[1])}</style>", page)
    page = re.sub(r'<script src="([\w.]+)"></script>', lambda m: f"<script>\n{source(m[1])}</script>", page)
    return page.encode()


def pack(folder: str | os.PathLike | None = None, dtype: str = "float16") -> dict[str, Any]:
    """What `Flamingo.load` of flamingo.js reads: configuration, tokenizer and weights of a checkpoint."""
    folder = find_checkpoint(shipped_checkpoint() if folder is None else Path(folder))
    model = load_checkpoint(folder)
    config = config_to_dict(model.config)
    _require_known_kinds(folder, config)
    leaves = named_leaves({"params": model.params, "frozen": model.frozen})
    leaves = {name: array for name, array in leaves.items() if not name.startswith(UNUSED)}
    with np.errstate(over="ignore"):
        leaves = {name: array.astype(_type(array, dtype)) for name, array in leaves.items()}
    if name := not_finite(leaves):
        raise UserError(f"checkpoint {folder}: {name} has numbers that are too large for {dtype}: explore another one")
    weights = b"".join(array.tobytes() for array in leaves.values())
    return {
        "config": config,
        "pieces": _pieces(model.tokenizer.model),
        "index": [[name, list(array.shape), array.dtype.name] for name, array in leaves.items()],
        "weights": base64.b64encode(weights).decode(),
        "sha256": json.loads((folder / CARD).read_bytes())["sha256"],
        "info": _info(folder, model, len(weights)),
        "gateLog": _gate_log(folder, model),
    }


def _type(array, dtype):
    """Little-endian. Gains, biases, gates and other vectors stay float32: they are few, and every token meets them."""
    return np.dtype(dtype if array.ndim > 1 else "float32").newbyteorder("<")


def _require_known_kinds(folder, config):
    for part, kinds in KINDS.items():
        if config[part]["kind"] not in kinds:
            raise UserError(
                f"checkpoint {folder}: its {part} is of kind {config[part]['kind']!r}, which the explorer cannot "
                f"compute (it knows {' and '.join(map(repr, kinds))}): explore another checkpoint"
            )


def _pieces(model):
    """[text, score, type] of every piece."""
    sp = sentencepiece.SentencePieceProcessor(model_proto=model)

    def kind(i):
        return CONTROL if sp.is_control(i) else UNKNOWN if sp.is_unknown(i) else BYTE if sp.is_byte(i) else NORMAL

    return [[sp.id_to_piece(i), sp.get_score(i), kind(i)] for i in range(sp.get_piece_size())]


def _info(folder, model, size):
    """What the page says about the checkpoint. world: whose pictures it has seen."""
    card = {name: model.info.get(name) for name in INFO}
    world = "own data" if model.info.get("data") else "omniglot" if "omniglot" in str(card["preset"]) else "tinyworld"
    name = "shipped" if folder == shipped_checkpoint() else folder.resolve().name
    return card | {"name": name, "world": world, "bytes": size, "version": tinyflamingo.__version__}


def _gate_log(folder, model: TrainedFlamingo) -> list[dict]:
    """|tanh(alpha)| of every gate over the run, if its log is there: [{"step", "gates": one pair for each block}]."""
    runs = [SHIPPED_LOG] if folder == shipped_checkpoint() else [folder, folder.parent]
    names = [[f"xattn_{i}/alpha_xattn", f"xattn_{i}/alpha_dense"] for i in model.config.gated_layers]
    try:
        rows = next((read_log(run) for run in runs if (run / LOG).is_file()), [])
        moments = [
            {"step": row["step"], "gates": [[row["gates"][name] for name in pair] for pair in names]}
            for row in rows
            if "gates" in row
        ]
    except (ValueError, LookupError, TypeError) as error:
        raise UserError(
            f"checkpoint {folder}: the log of its run is damaged, or that of another model ({error}): remove {LOG}"
        ) from error
    return moments[:: -(-len(moments) // MOMENTS) or 1]
