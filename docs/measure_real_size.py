"""A random checkpoint of OpenFlamingo-3B's exact names and shapes: converted, completed, measured, deleted.

`python docs/measure_real_size.py [--folder DIR]` needs 21 GB of disk there. It prints the rows of the table in
scaling.md: seconds, and the peak of a process's own memory beside that of the mapped file's pages in it, which
the system may drop at any time.
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

from tinyflamingo.interop import decoder_names, files, open_flamingo
from tinyflamingo.interop.byte_bpe import LETTERS
from tinyflamingo.interop.peers import RESAMPLER, XATTN
from tinyflamingo.interop.vit_names import PIXELS
from tinyflamingo.model.config import FlamingoConfig, ResamplerConfig, TextTowerConfig, ViTConfig, XattnConfig
from tinyflamingo.model.trained import write_atomically

DECODER = {  # config.json of MPT-1B
    "model_type": "mosaic_gpt", "d_model": 2048, "n_heads": 16, "n_layers": 24, "mlp_ratio": 4, "max_seq_len": 2048,
    "vocab_size": 50368, "alibi": True, "alibi_bias_max": 8, "attn_qk_ln": True, "no_bias": True,
}  # fmt: skip
WORDS = 50277  # of GPT-NeoX's tokenizer; OpenFlamingo adds three
PROMPT, PICTURE = "<image>Output:", Path(__file__).parent / "examples" / "red_circle.png"
TOKENS = (2, 34)  # two lengths of a completion: their difference is the time of 32 tokens


def config() -> FlamingoConfig:
    """OpenFlamingo-3B: CLIP ViT-L/14, MPT-1B, a gated block before every block."""
    language = decoder_names.hugging_face_config(DECODER)
    return FlamingoConfig(
        vision=ViTConfig(patch=14, width=1024, layers=24, heads=16, side=224, norm_features=False, pixels=PIXELS),
        text_tower=TextTowerConfig(vocab_size=language.vocab_size, joint_width=768),
        resampler=ResamplerConfig(1024, 1024, layers=6, heads=8, key_size=64, latents=64, frames=0, **RESAMPLER),
        language=language,
        xattn=XattnConfig(heads=8, key_size=64, **XATTN),
    )


def write_random(folder: Path):
    """The three files that `convert` reads, with a tokenizer of the right size and no merges."""
    shapes = {row.theirs: row.shape for row in open_flamingo.checkpoint_rows(config())}
    shapes["lang_encoder.transformer.wte.weight"] = (WORDS + 3, 2048)
    pool = np.random.default_rng(0).standard_normal(10_000_019, np.float32)  # a prime: no two rows begin alike

    def draw(name):
        x = np.resize(pool, shapes[name])
        return 1 + 0.1 * x if name.endswith("norm.weight") or "ln" in name else 0.02 * x

    write_atomically(folder / "checkpoint.safetensors", files.chunks(".safetensors", shapes, draw))
    (folder / "config.json").write_text(json.dumps(DECODER))
    vocab = {word: i for i, word in enumerate([*LETTERS, "<|endoftext|>", *(f"w{i}" for i in range(257, WORDS))])}
    words = {"pre_tokenizer": {"type": "ByteLevel"}, "model": {"type": "BPE", "vocab": vocab, "merges": []}}
    (folder / "tokenizer.json").write_text(json.dumps(words))


def measure(*arguments):
    """Run a command: (seconds, peak of its own memory, peak of mapped pages), both in GiB."""
    begin = time.perf_counter()
    process = subprocess.Popen([sys.executable, "-m", "tinyflamingo", *map(str, arguments)], stdout=subprocess.PIPE)
    peaks = {"RssAnon": 0, "RssFile": 0}
    watcher = threading.Thread(target=watch, args=(process.pid, peaks), daemon=True)
    watcher.start()
    process.communicate()
    seconds = time.perf_counter() - begin
    if process.returncode:
        raise SystemExit(f"{arguments[0]} failed with exit code {process.returncode}")
    return seconds, peaks["RssAnon"] / 2**20, peaks["RssFile"] / 2**20


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


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, help="where there is room for 21 GB (default: the temporary folder)")
    with tempfile.TemporaryDirectory(dir=parser.parse_args().folder) as name:
        theirs, ours = Path(name) / "theirs", Path(name) / "ours"
        theirs.mkdir()
        write_random(theirs)
        size = os.path.getsize(theirs / "checkpoint.safetensors") / 2**30
        print(f"checkpoint: {size:.1f} GiB")
        report("convert", measure("convert", "--from", "open_flamingo", theirs, "--to", ours))
        (theirs / "checkpoint.safetensors").unlink()
        measure("complete", PROMPT, PICTURE, "--checkpoint", ours, "--max-tokens", 1)  # the file is in memory then
        runs = [measure("complete", PROMPT, PICTURE, "--checkpoint", ours, "--max-tokens", n) for n in TOKENS]
        report(f"complete, {TOKENS[0]} tokens", runs[0])
        report(f"complete, {TOKENS[1]} tokens", runs[1])
        print(f"a token: {(runs[1][0] - runs[0][0]) / (TOKENS[1] - TOKENS[0]):.2f} s")


def report(name, found):
    print("| {} | {:.0f} s | {:.2f} GiB | {:.1f} GiB |".format(name, *found), flush=True)


if __name__ == "__main__":
    main()
