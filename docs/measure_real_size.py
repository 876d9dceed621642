"""A random checkpoint of OpenFlamingo-3B's exact names and shapes: converted, completed, measured, deleted.

`python docs/measure_real_size.py [--folder DIR] [--json docs/real_size.json]` needs 21 GB of disk there. It measures
seconds, and the peak of a process's own memory beside that of the mapped file's pages in it, which the system may
drop at any time. `docs/make_tables.py` makes the table in scaling.md of the JSON file.
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
WORDS = 50277  # of GPT-NeoX's tokenizer; OpenFlamingo adds three
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


def write_random(folder: Path):
    """The three files that `convert` reads, with a tokenizer of the right size and no merges."""
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


def measure(*arguments):
    """Run a command: what it printed; and its seconds, the peaks in GiB of its own memory and of the mapped pages."""
    command, peaks = [sys.executable, "-m", "tinyflamingo", *map(str, arguments)], {"RssAnon": 0, "RssFile": 0}
    begin = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.PIPE, cwd=ROOT)
    watcher = threading.Thread(target=watch, args=(process.pid, peaks), daemon=True)
    watcher.start()
    said, _ = process.communicate()
    seconds = time.perf_counter() - begin
    if process.returncode:
        raise SystemExit(f"{arguments[0]} failed with exit code {process.returncode}")
    own, mapped = (round(peaks[name] / 2**20, 2) for name in ("RssAnon", "RssFile"))
    return said, {"seconds": round(seconds, 1), "own_gib": own, "file_gib": mapped}


def measure_completion(folder, tokens) -> dict:
    """Complete a prompt with so many tokens, and see that none is missing: <EOC> would end it early."""
    said, found = measure("complete", PROMPT, PICTURE, "--checkpoint", folder, "--max-tokens", tokens, "--json")
    if (written := len(json.loads(said)["tokens"])) != tokens:
        raise SystemExit(f"{tokens} tokens were asked for and {written} came: their time would be of another number")
    return found


def watch(pid, peaks):
    """Keep the largest of each number (kB) that the system tells of a process, twenty times a second."""
    while True:
        try:
            lines = Path(f"/proc/{pid}/status").read_text().splitlines()
        except OSError:
            return
        told = dict(line.split(":", 1) for line in lines)
        for name in peaks:
            peaks[name] = max(peaks[name], int(told.get(name, "0 kB").split()[0]))
        time.sleep(0.05)


def forget(folder):
    """Have the system drop what it holds of a folder's files, so that the next reader goes to the disk."""
    for path in folder.rglob("*.*"):
        with path.open("rb") as file:
            os.fsync(file.fileno())
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def measure_all(folder) -> dict:
    """{what was run: its measurements}, from a random checkpoint in the peer's names to completions."""
    theirs, ours = folder / "theirs", folder / "ours"
    theirs.mkdir()
    write_random(theirs)
    forget(theirs)
    found = {"convert": measure("convert", "--from", "open_flamingo", theirs, "--to", ours)[1]}
    (theirs / "checkpoint.safetensors").unlink()
    forget(ours)
    for place, tokens in (("disk", TOKENS[0]), *(("memory", n) for n in TOKENS)):
        found[f"{place}, {tokens} tokens"] = measure_completion(ours, tokens)
    return found


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", type=Path, help="where there is room for 21 GB (default: the temporary folder)")
    parser.add_argument("--json", type=Path, help="file that keeps what was measured")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=args.folder) as name:
        found = measure_all(Path(name).resolve())
    text = json.dumps(found, indent=1) + "\n"
    print(text, end="")
    if args.json:
        args.json.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
