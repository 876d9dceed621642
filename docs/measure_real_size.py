"""Measures conversion and completion with a random checkpoint of OpenFlamingo-3B's exact names and shapes.

    python docs/measure_real_size.py [--folder DIR] [--json docs/real_size.json]

It writes the checkpoint into a temporary folder (21 GB) and deletes it at the end. For each command it measures the
seconds, the peak of the process's own memory, and the peak of the mapped file's pages in it, which the system may drop
at any time. `docs/make_tables.py` makes the table in scaling.md from the JSON file. Linux only: it reads /proc.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from tinyflamingo import array_files  # noqa: E402
from tinyflamingo.files import write_atomically  # noqa: E402
from tinyflamingo.interop import decoder_names, open_flamingo  # noqa: E402
from tinyflamingo.interop.vit_names import PIXELS  # noqa: E402
from tinyflamingo.model.config import FlamingoConfig, TextTowerConfig  # noqa: E402
from tinyflamingo.variants.byte_bpe import LETTERS  # noqa: E402
from tinyflamingo.variants.ports import PortResamplerConfig, PortXattnConfig  # noqa: E402
from tinyflamingo.variants.vit import ViTConfig  # noqa: E402

DECODER = {  # config.json of MPT-1B
    "model_type": "mosaic_gpt", "d_model": 2048, "n_heads": 16, "n_layers": 24, "mlp_ratio": 4, "max_seq_len": 2048,
    "vocab_size": 50368, "alibi": True, "alibi_bias_max": 8, "attn_qk_ln": True, "no_bias": True,
}  # fmt: skip
WORDS = 50277  # ids of GPT-NeoX's tokenizer; OpenFlamingo adds three
PROMPT, PICTURE = "<image>Output:", ROOT / "docs" / "examples" / "red_circle.png"
TOKENS = (2, 34)  # two lengths of a completion: their difference is the time of 32 tokens


def config() -> FlamingoConfig:
    """OpenFlamingo-3B: CLIP ViT-L/14, MPT-1B, a gated block before every block."""
    language = decoder_names.hugging_face_config(DECODER)
    return FlamingoConfig(
        vision=ViTConfig(patch=14, width=1024, layers=24, heads=16, side=224, norm_features=False, pixels=PIXELS),
        text_tower=TextTowerConfig(vocab_size=language.vocab_size, joint_width=768),
        resampler=PortResamplerConfig(1024, 1024, layers=6, heads=8, key_size=64, latents=64, frames=0),
        language=language,
        xattn=PortXattnConfig(heads=8, key_size=64),
    )


def write_random(folder: Path) -> None:
    """Write the three files that `convert` reads; the tokenizer has the right size and no merges."""
    shapes = {row.theirs: row.shape for row in open_flamingo.checkpoint_rows(config())}
    shapes["lang_encoder.transformer.wte.weight"] = (WORDS + 3, 2048)
    pool = np.random.default_rng(0).standard_normal(10_000_019, np.float32)  # a prime: no two rows begin alike

    def draw(name):
        x = np.resize(pool, shapes[name])
        return 1 + 0.1 * x if name.endswith("norm.weight") or "ln" in name else 0.02 * x

    write_atomically(folder / "checkpoint.safetensors", array_files.chunks(".safetensors", shapes, draw))
    (folder / "config.json").write_text(json.dumps(DECODER))
    vocab = {word: i for i, word in enumerate([*LETTERS, "<|endoftext|>", *(f"w{i}" for i in range(257, WORDS))])}
    words = {"pre_tokenizer": {"type": "ByteLevel"}, "model": {"type": "BPE", "vocab": vocab, "merges": []}}
    (folder / "tokenizer.json").write_text(json.dumps(words))


def measure(*arguments) -> tuple[bytes, dict]:
    """Run a command. Returns its output, and {"seconds", peaks in GiB of its own memory and of the mapped pages}."""
    command, peaks = [sys.executable, "-m", "tinyflamingo", *map(str, arguments)], {"RssAnon": 0, "RssFile": 0}
    begin = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.PIPE, cwd=ROOT)
    watcher = threading.Thread(target=watch, args=(process.pid, peaks), daemon=True)
    watcher.start()
    output, _ = process.communicate()
    seconds = time.perf_counter() - begin
    if process.returncode:
        raise SystemExit(f"{arguments[0]} failed with exit code {process.returncode}")
    own, mapped = (round(peaks[name] / 2**20, 2) for name in ("RssAnon", "RssFile"))
    return output, {"seconds": round(seconds, 1), "own_gib": own, "file_gib": mapped}


def measure_completion(folder: Path, tokens: int) -> dict:
    """Measure a completion of exactly this many tokens; a shorter one, which <EOC> ended, is an error."""
    output, row = measure("complete", PROMPT, PICTURE, "--checkpoint", folder, "--max-tokens", tokens, "--json")
    if (written := len(json.loads(output)["tokens"])) != tokens:
        raise SystemExit(f"the completion has {written} tokens, not {tokens}: its time cannot be used")
    return row


def watch(pid: int, peaks: dict[str, int]) -> None:
    """Keep the largest value of each number (kB) in the status of a process, twenty times a second."""
    while True:
        try:
            lines = Path(f"/proc/{pid}/status").read_text().splitlines()
        except OSError:
            return
        status = dict(line.split(":", 1) for line in lines)
        for name in peaks:
            peaks[name] = max(peaks[name], int(status.get(name, "0 kB").split()[0]))
        time.sleep(0.05)


def forget(folder: Path) -> None:
    """Ask the system to drop a folder's files from memory, so that the next reader reads from the disk."""
    for path in folder.rglob("*.*"):
        with path.open("rb") as file:
            os.fsync(file.fileno())
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def measure_all(folder: Path) -> dict:
    """{name of a run: its measurements}: the conversion of a random checkpoint, and completions with the result."""
    source, converted = folder / "source", folder / "converted"
    source.mkdir()
    write_random(source)
    forget(source)
    rows = {"convert": measure("convert", "--from", "open_flamingo", source, "--to", converted)[1]}
    (source / "checkpoint.safetensors").unlink()
    forget(converted)
    for place, tokens in (("disk", TOKENS[0]), *(("memory", n) for n in TOKENS)):
        rows[f"{place}, {tokens} tokens"] = measure_completion(converted, tokens)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", type=Path, help="a folder with 21 GB of free space (default: the temporary folder)")
    parser.add_argument("--json", type=Path, help="write the measurements to this file")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=args.folder) as name:
        rows = measure_all(Path(name).resolve())
    text = json.dumps(rows, indent=1) + "\n"
    print(text, end="")
    if args.json:
        args.json.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
