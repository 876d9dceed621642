"""Flamingo in one file: text, pictures and videos go in, the text that follows comes out.

    python -m tinyflamingo.one_file '<image>Output:' docs/examples/red_circle.png        # a red circle.

The forward pass in plain NumPy, in the chapter's order. No cache, no limits of length; the package is faster.
T text tokens, N media (pictures, videos), F frames of a medium, S spatial features of a frame, R latents, D width, Dv
width of visual features, H heads, K head size, V vocabulary, p parameters of a part. Comments give shapes: in -> out.
"""

import argparse
import base64
import json
import re
from pathlib import Path

import numpy as np
import sentencepiece
from PIL import Image, ImageOps, ImageSequence

PAD, BOS, EOS, UNK, IMAGE = range(5)  # reserved token ids; <EOC> has the id V, the first after the text pieces
EOC = object()  # an item of a prompt: the chunk ends here
CHAPTER = {"nf_resnet", "bert", "perceiver", "chinchilla", "gated", "placed"}  # kinds of parts that this file has


def layer_norm(x, gain, bias):  # (..., D) -> (..., D)
    return (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-5) * gain + bias


def rms_norm(x, gain):  # (..., D) -> (..., D)
    return x / np.sqrt((x * x).mean(-1, keepdims=True) + 1e-6) * gain


def gelu(x):
    return 0.5 * x * (1 + np.tanh((2 / np.pi) ** 0.5 * (x + 0.044715 * x * x * x)))


def project(p, H, **inputs):  # name of a matrix = its input x (T, D) -> for each name (H, T, K)
    return [(x @ p[w]).reshape(len(x), H, p[w].shape[1] // H).swapaxes(0, 1) for w, x in inputs.items()]


def attend(scores, v, visible=True):  # T queries, S keys: (H, T, S), (H, S, K), (T, S) -> (T, H K)
    scores = np.where(visible, scores * v.shape[2] ** -0.5, -1e9)
    weights = np.exp(scores - scores.max(-1, keepdims=True, initial=-1e9)) * visible  # the largest is exp(0) = 1
    weights = weights / np.maximum(weights.sum(-1, keepdims=True), 1)  # the sum is >= 1, or 0: nothing visible
    return (weights @ v).swapaxes(0, 1).reshape(scores.shape[1], -1)


# ---- §2 Vision encoder: a ResNet without normalisation layers (NF-ResNet)
GAIN = 1.7015043497085571  # if x has variance 1, then GAIN * gelu(x) has variance 1


def conv(p, x, stride=1):  # (F, Y, X, C) -> (F, Y / stride, X / stride, C'): standardised weights, SAME padding
    (k, _, inputs, outputs), w = p["w"].shape, p["w"] - p["w"].mean((0, 1, 2))
    w = w * (p["gain"] / np.sqrt(np.maximum((w * w).sum((0, 1, 2)), 1e-4)))  # mean 0, norm gain
    pads = [max((-(-n // stride) - 1) * stride + k - n, 0) for n in x.shape[1:3]]
    x = np.pad(x, [(0, 0), *((n // 2, n - n // 2) for n in pads), (0, 0)])
    x = np.lib.stride_tricks.sliding_window_view(x, (k, k), axis=(1, 2))[:, ::stride, ::stride]
    (F, Y, X), G = x.shape[:3], x.shape[3] // inputs  # G groups of channels
    x = x.reshape(F * Y * X, G, inputs * k * k).swapaxes(0, 1)  # what an output pixel sees
    w = w.transpose(2, 0, 1, 3).reshape(inputs * k * k, G, outputs // G).swapaxes(0, 1)
    return (x @ w).swapaxes(0, 1).reshape(F, Y, X, outputs) + p["b"]


def nf_block(p, h, beta, alpha, stride):  # (F, Y, X, C) -> (F, Y / stride, X / stride, C')
    (F, Y, X, C), se, shortcut = h.shape, p["squeeze_excite"], h
    x = GAIN * gelu(h) / beta  # beta: the standard deviation of h, known from the design, not measured
    if "shortcut" in p:  # the first block of a stage: mean of stride x stride pixels, then a 1 x 1 convolution
        pooled = np.pad(x, [(0, 0), (0, -Y % stride), (0, -X % stride), (0, 0)], "edge")
        pooled = pooled.reshape(F, -(-Y // stride), stride, -(-X // stride), stride, C).mean((2, 4))
        shortcut = conv(p["shortcut"], pooled)
    x = conv(p["reduce"], x)
    for name, step in (("spatial_0", stride), ("spatial_1", 1), ("expand", 1)):
        x = conv(p[name], GAIN * gelu(x), step)
    squeezed = GAIN * gelu(x.mean((1, 2), keepdims=True) @ se["w_squeeze"] + se["b_squeeze"])
    gates = 1 + np.tanh(0.5 * (squeezed @ se["w_excite"] + se["b_excite"]))  # twice a sigmoid: about 1
    return shortcut + alpha * p["skip_init_gain"] * gates * x


def vision_encoder(p, frames, config):  # uint8 (F, Y, X, 3), each frame by itself -> (F, S, Dv)
    alpha, variance = config["alpha"], 1.0
    h = (frames.astype(np.float32) - 110.0) / 80.0  # mean and spread of pixel values 0..255
    for i, (_, stride) in enumerate(config["stem"]):
        h = conv(p[f"stem_{i}"], GAIN * gelu(h) if i else h, stride)
    for s, (_, blocks, stride) in enumerate(config["stages"]):
        for b in range(blocks):
            h = nf_block(p[f"stage_{s}_block_{b}"], h, variance**0.5, alpha, 1 if b else stride)
            variance = (variance if b else 1.0) + alpha**2  # the shortcut convolution makes it 1 again
    return (GAIN * gelu(conv(p["final"], h))).reshape(len(frames), -1, len(p["final"]["b"]))


# ---- §3 Perceiver resampler: any number of features in, R visual tokens out
def resampler(p, features, config):  # (F, S, D) of one medium -> (R, D); here Dv = D
    (F, S, D), frames, H, latents = features.shape, len(p["temporal"]), config["heads"], p["latents"]
    place = np.arange(F) if F <= frames else np.linspace(0, frames - 1, F)  # a longer video stretches the table
    share = np.maximum(1 - np.abs(place[:, None] - np.arange(frames)), 0)  # (F, frames): linear interpolation
    x = (features + (share.astype(np.float32) @ p["temporal"])[:, None]).reshape(F * S, D)
    for layer in (p[f"layer_{i}"] for i in range(config["layers"])):
        queries = layer_norm(latents, layer["attn_gain"], layer["attn_bias"])
        both = np.concatenate([x, queries])  # keys and values: features and latents; queries: latents alone
        q, k, v = project(layer, H, w_q=queries, w_k=both, w_v=both)
        latents = latents + attend(q @ k.swapaxes(1, 2), v) @ layer["w_o"]
        hidden = layer_norm(latents, layer["ffw_gain"], layer["ffw_bias"]) @ layer["w_1"]
        latents = latents + np.maximum(hidden, 0) ** 2 @ layer["w_2"]
    return latents


def encode_and_resample(model, media):  # N pictures (Y, X, 3) and videos (F, Y, X, 3), uint8, any size -> (N, R, D)
    p, frozen, config = model["params"]["resampler"], model["frozen"], model["config"]
    visual = np.zeros((len(media), *p["latents"].shape), np.float32)
    for n, medium in enumerate(media):  # a picture is a video of one frame
        frames = [fit(Image.fromarray(rgb), config["vision"]["side"]) for rgb in medium.reshape(-1, *medium.shape[-3:])]
        features = vision_encoder(frozen["vision"], np.stack(frames), config["vision"])
        visual[n] = resampler(p, (features - frozen["feature_mean"]) * frozen["feature_scale"], config["resampler"])
    return visual


# ---- §4 Language model: frozen decoder blocks, and gated blocks before them
def interleave(items, tokenizer):  # -> ids (T,): <BOS>, text, <image> for a medium, <EOC> where a chunk ends; media
    tokens, media, eoc = [BOS], [], tokenizer.get_piece_size()
    for item in items:
        if isinstance(item, str):  # "<image>" in a string is ordinary text; \u2581 would be decoded as a space
            text = item.strip(" ").replace("\x1a", "\x1a0").replace("\u2581", "\x1a1")
            tokens += tokenizer.encode(text.encode()) if text.strip() else []
        else:
            tokens += [] if tokens[-1] in (BOS, eoc) else [eoc]  # a medium begins a new chunk
            tokens, media = (tokens, media) if item is EOC else ([*tokens, IMAGE], [*media, item])
    return np.array(tokens), media


def phi_of(tokens):  # (T,) -> (T,): the number of the medium that a token sees, the last one so far; 0: none
    return np.cumsum(tokens == IMAGE)


def gated_xattn_dense(p, h, visual, phi, H):  # text (T, D), visual (N, R, D), phi (T,) -> (T, D); gates start at 0
    N, R, D = visual.shape
    media = layer_norm(visual.reshape(N * R, D), p["media_gain"], p["media_bias"])
    q, k, v = project(p, H, w_q=layer_norm(h, p["query_gain"], p["query_bias"]), w_k=media, w_v=media)
    visible = phi[:, None] == np.repeat(np.arange(N) + 1, R)  # (T, N R): one medium's R tokens; phi 0: none
    h = h + np.tanh(p["alpha_xattn"]) * (attend(q @ k.swapaxes(1, 2), v, visible) @ p["w_o"])
    hidden = np.maximum(layer_norm(h, p["ffw_gain"], p["ffw_bias"]) @ p["w_1"], 0) ** 2
    return h + np.tanh(p["alpha_dense"]) * (hidden @ p["w_2"])


def decoder_block(p, h, H):  # (T, D) -> (T, D); scores as in Transformer-XL: (q + u) k + (q + v) r(distance)
    T, D = h.shape
    angles = np.arange(T)[:, None] * 10000.0 ** (-np.arange(0, D, 2) / D)
    waves = np.concatenate([np.sin(angles), np.cos(angles)], 1).astype(np.float32)  # row n: distance n
    x = rms_norm(h, p["attn_gain"])
    q, k, v, r = project(p, H, w_q=x, w_k=x, w_v=x, w_r=waves)
    distance = np.arange(T)[:, None] - np.arange(T)  # (T, T), from query to key; below 0: the future
    by_distance = (q + p["v"][:, None]) @ r.swapaxes(1, 2)  # (H, T, T)
    position = np.take_along_axis(by_distance, np.maximum(distance, 0)[None], axis=2)  # (H, T, T), now by key
    content = (q + p["u"][:, None]) @ k.swapaxes(1, 2)
    h = h + attend(content + position, v, visible=distance >= 0) @ p["w_o"] + p["b_o"]
    return h + gelu(rms_norm(h, p["ffw_gain"]) @ p["w_1"] + p["b_1"]) @ p["w_2"] + p["b_2"]


def flamingo(model, tokens, visual):  # (T,), (N, R, D) -> logits (T, V + 1) of the next token; column V: <EOC>
    params, language, config = model["params"], model["frozen"]["language"], model["config"]
    table = np.concatenate([language["embedding"], params["eoc"][None]])  # (V + 1, D)
    h, phi = table[tokens] * table.shape[1] ** 0.5, phi_of(tokens)  # (T, D) and (T,)
    for i in range(config["language"]["layers"]):
        if f"xattn_{i}" in params:
            h = gated_xattn_dense(params[f"xattn_{i}"], h, visual, phi, config["xattn"]["heads"])  # trained
        h = decoder_block(language[f"block_{i}"], h, config["language"]["heads"])  # frozen
    return rms_norm(h, language["final_gain"]) @ table.T


# ---- §5 Application: completion of a prompt
def complete(model, items, max_tokens=24):  # a list of strings, pictures, videos and EOC -> the text that follows
    tokens, media = interleave(items, model["tokenizer"])
    T, visual = len(tokens), encode_and_resample(model, media)
    while len(tokens) < T + max_tokens:
        logits = flamingo(model, tokens, visual)[-1]
        logits[[PAD, BOS, UNK, IMAGE]] = -np.inf  # a text holds none of these
        if not np.isfinite(logits.max()):
            raise ValueError("the model gives NaN or infinite logits: use another checkpoint")
        if logits.argmax() == len(logits) - 1:  # <EOC>: the chunk is complete
            break
        tokens = np.append(tokens, logits.argmax())
    text = model["tokenizer"].decode([int(token) for token in tokens[T:] if token > IMAGE])
    return text.replace("\x1a1", "\u2581").replace("\x1a0", "\x1a").strip()


def load(folder=None):  # -> a model: params (what Flamingo trains), frozen (what it does not), tokenizer, config
    folder = Path(folder or Path(__file__).parent / "assets" / "toy")  # of a checkpoint or of a run
    folder, model = folder / "checkpoint" if (folder / "checkpoint").is_dir() else folder, {}
    card = json.loads((folder / "model.json").read_text(encoding="utf-8"))
    if card["format"] != 3 or {part["kind"] for part in card["config"].values()} - CHAPTER:
        raise ValueError(f"{folder} has another format, or parts that this file lacks: try 'tinyflamingo complete'")
    for name, array in np.load(folder / "weights.npz", allow_pickle=False).items():
        node, (*path, leaf) = model, name.split("/")
        for part in path:
            node = node.setdefault(part, {})
        node[leaf] = array.astype(np.float32)
        if not np.isfinite(node[leaf]).all():
            raise ValueError(f"{name} has NaN or infinite numbers: use another checkpoint")
    tokenizer = sentencepiece.SentencePieceProcessor(model_proto=base64.b64decode(card["tokenizer"]))
    return model | {"tokenizer": tokenizer, "config": card["config"]}


def area_weights(cells, length, parts):  # (parts, cells): the share of each cell in each part of a line
    before = np.clip(np.linspace(0, length, parts + 1)[:, None] - np.arange(cells), 0, 1)
    return (np.diff(before, axis=0) * (parts / length)).astype(np.float32)


def fit(image, side):  # RGB picture of any size -> (side, side, 3): area average; the mean colour fills up the square
    X, Y = (max(1, round(side * n / max(image.size))) for n in image.size)
    by_x, by_y = max(1, image.width // (8 * X)), max(1, image.height // (8 * Y))
    cells = np.asarray(image.reduce((by_x, by_y)), np.float32)  # a large picture shrinks by whole factors first
    down = area_weights(cells.shape[0], image.height / by_y, Y)
    across = area_weights(cells.shape[1], image.width / by_x, X)
    pixels = np.einsum("iy,yxc,jx->ijc", down, cells, across, optimize=True)
    square = np.tile(pixels.mean((0, 1)), (side, side, 1))
    top, left = (side - Y) // 2, (side - X) // 2
    square[top : top + Y, left : left + X] = pixels
    return (square + 0.5).astype(np.uint8)


def read(mark, file):  # <image>: uint8 (1, Y, X, 3); <video>: one frame a second of an animated GIF, (F, Y, X, 3)
    image, frames, time = Image.open(file), [], 0
    if image.mode[0] in "IF":
        raise ValueError(f"{file} has more than 8 bits for each colour: save it with 8 bits")
    for frame in ImageSequence.Iterator(image) if mark == "<video>" else [image]:
        rgba = ImageOps.exif_transpose(frame).convert("RGBA")  # whatever is transparent becomes white
        picture = np.asarray(Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba).convert("RGB"))
        frames += [picture] * (time // 1000 + 1 - len(frames))
        time += delay if (delay := int(frame.info.get("duration", 0))) > 10 else 100  # milliseconds, as in browsers
    return np.stack(frames)


def read_prompt(template, files):  # text with marks, and one file for each <image> and <video> -> a list of items
    marks = re.findall("<image>|<video>", template)
    if len(marks) != len(files):
        raise ValueError(f"{len(marks)} marks <image> or <video>, {len(files)} files: give one file for each mark")
    media, parts = map(read, marks, files), re.split("(<image>|<video>|<EOC>)", template)
    return [EOC if part == "<EOC>" else next(media) if part in marks else part for part in parts]


if __name__ == "__main__":
    np.seterr(all="ignore")  # NaN and infinity are errors anyway
    parser = argparse.ArgumentParser(prog="one_file", description=__doc__.splitlines()[0])
    parser.add_argument("template", help="text with <image>, <video> and <EOC> marks")
    parser.add_argument("files", nargs="*", help="a picture or an animated GIF for each <image> or <video>, in order")
    parser.add_argument("--checkpoint", help="folder (default: the one that ships)")
    args = parser.parse_args()
    try:
        print(complete(load(args.checkpoint), read_prompt(args.template, args.files)))
    except Exception as error:  # files can be wrong in any way
        parser.exit(2, f"one_file: {error}\n")
