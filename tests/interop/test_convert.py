"""`convert` in both directions: parts, whole checkpoints in several files, and each mistake as one line."""

import dataclasses
import json

import numpy as np
import pytest
from PIL import Image
from preparation_cases import picture
from test_byte_bpe import tokenizer_json
from test_decoders import PUBLISHED

import tinyflamingo
from tinyflamingo import array_files as files
from tinyflamingo.checkpoint import load_checkpoint, save_checkpoint
from tinyflamingo.cli import main
from tinyflamingo.data.images import load_picture
from tinyflamingo.data.items import EOC
from tinyflamingo.data.preparation import CLIP
from tinyflamingo.errors import UserError
from tinyflamingo.files import write_atomically
from tinyflamingo.interop import convert, decoder_names, names, open_flamingo, peers
from tinyflamingo.interop.vit_names import PIXELS
from tinyflamingo.model.config import FlamingoConfig, TextTowerConfig
from tinyflamingo.ops.tree import named_leaves
from tinyflamingo.variants.ports import PortResamplerConfig, PortXattnConfig
from tinyflamingo.variants.registry import config_to_dict, untrained
from tinyflamingo.variants.vit import ViTConfig

SIZES = {"vocab_size": 300, "d_model": 24, "n_layers": 3, "n_heads": 4, "max_seq_len": 64, "mlp_ratio": 2}
DECODER = {"model_type": "mosaic_gpt", "alibi": True, "attn_qk_ln": True, "no_bias": True} | SIZES
WORDS = tokenizer_json()
PICTURES: dict = {"pixels": PIXELS, "preparation": CLIP}
ROWS = 256 + 14 + 1 + 3


def write(path, arrays):
    write_atomically(path, files.chunks(path.suffix, {n: a.shape for n, a in arrays.items()}, arrays.get))


def run(*arguments):
    return main([str(a) for a in arguments])


def error_of(capsys, *arguments):
    """The line on stderr of a command that fails."""
    assert run(*arguments) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    return error


# ---------------------------------------------------------------- parts


@pytest.mark.parametrize("ending", files.ENDINGS)
@pytest.mark.parametrize("peer", peers.PORTS)
def test_parts_in_both_directions(tmp_path, capsys, random_tensors, peer, ending):
    config = peers.with_conventions(FlamingoConfig(), peer)
    for part, rows in (
        ("resampler", names.resampler_rows(peer, config.resampler)),
        ("xattn", names.xattn_rows(peer, config)),
    ):
        theirs = {f"model.{n}": a for n, a in random_tensors(rows, np.float32).items()}
        write(tmp_path / f"theirs{ending}", theirs | {"other": np.zeros(3, np.float32)})
        ours, back = tmp_path / f"ours{ending}", tmp_path / f"back{ending}"
        options = ["--prefix", "model.", "--head-size", "32"]
        assert run("convert", "--from", peer, tmp_path / f"theirs{ending}", "--to", ours, *options) == 0
        assert f"{part} of {peer}: {len(names.our_shapes(rows))} tensors" in capsys.readouterr().out
        assert run("convert", ours, "--to", peer, back, "--prefix", "model.") == 0
        again = files.read_arrays(back)
        assert list(again) == list(theirs)
        for name, array in theirs.items():
            np.testing.assert_array_equal(again[name], array, err_msg=name)


@pytest.mark.parametrize("family", ["gpt2", "opt", "mpt"])
def test_decoders_in_both_directions(tmp_path, random_tensors, family):
    raw = {
        "gpt2": {"n_embd": 24, "n_layer": 2, "n_head": 3, "n_positions": 16},
        "opt": {"hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 3, "max_position_embeddings": 16},
        "mpt": {"d_model": 24, "n_layers": 2, "n_heads": 3, "max_seq_len": 16},
    }[family] | {"model_type": family, "vocab_size": 30}
    rows = decoder_names.language_rows(decoder_names.hugging_face_config(raw))
    theirs = random_tensors(rows, np.float32)
    folder = tmp_path / "hub"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(raw))
    write(folder / "model.safetensors", theirs)
    assert run("convert", "--from", "transformers", folder, "--to", tmp_path / "ours.safetensors") == 0
    assert run("convert", tmp_path / "ours.safetensors", "--to", "transformers", tmp_path / "back.npz") == 0
    for name, array in files.read_arrays(tmp_path / "back.npz").items():
        np.testing.assert_array_equal(array, theirs[name], err_msg=name)


@pytest.mark.parametrize("peer", peers.PORTS)
def test_a_checkpoint_of_ours_is_exported(tmp_path, capsys, tokenizer, peer):
    plain = FlamingoConfig()
    save_checkpoint(untrained(np.random.default_rng(0), plain, tokenizer), tmp_path / "plain")
    assert "other conventions" in error_of(capsys, "convert", tmp_path / "plain", "--to", peer, tmp_path / "x.npz")
    model = untrained(np.random.default_rng(0), peers.with_conventions(plain, peer), tokenizer)
    save_checkpoint(model, tmp_path / "own")
    assert run("convert", tmp_path / "own", "--to", peer, tmp_path / "x.safetensors") == 0
    exported = files.read_arrays(tmp_path / "x.safetensors")
    resampler, block = convert.SECTIONS[peer]
    np.testing.assert_array_equal(exported[resampler + "latents"], model.params["resampler"]["latents"])
    np.testing.assert_array_equal(exported[block.format(3) + "attn.to_q.weight"], model.params["xattn_3"]["w_q"].T)
    assert all(name.startswith((resampler, block.split("{")[0])) for name in exported)


# ---------------------------------------------------------------- whole checkpoints


def whole(every=2) -> FlamingoConfig:
    """A small OpenFlamingo: heads of size 64 and all other conventions of its program."""
    language = decoder_names.hugging_face_config(DECODER)
    return FlamingoConfig(
        vision=ViTConfig(patch=4, width=64, layers=2, heads=1, side=8, norm_features=False, **PICTURES),
        text_tower=TextTowerConfig(vocab_size=ROWS + 1, joint_width=16),
        resampler=PortResamplerConfig(64, 64, layers=2, heads=2, key_size=64, latents=5, frames=0),
        language=dataclasses.replace(language, vocab_size=ROWS + 1),
        xattn=PortXattnConfig(every=every, start=every - 1, heads=2, key_size=64),
    )


@pytest.fixture
def checkpoint(tmp_path, random_tensors):
    """As published: the trained part, the decoder and the tower in three files. Returns (folder, all tensors)."""
    tensors = random_tensors(open_flamingo.checkpoint_rows(whole()), np.float32)
    table = np.random.default_rng(1).standard_normal((ROWS, 24)).astype(np.float32)
    decoder = {n for n in tensors if ".decoder_layer." in n or ".ln_f." in n}
    tower = {n for n in tensors if n.startswith("vision_encoder.")}
    old = np.random.default_rng(2).standard_normal((300, 24)).astype(np.float32)
    bare = {n.removeprefix("lang_encoder.").replace("decoder_layer.", ""): tensors[n] for n in decoder}
    folder = tmp_path / "files"
    folder.mkdir()
    trained = {n: tensors[n] for n in tensors.keys() - decoder - tower} | {"lang_encoder.transformer.wte.weight": table}
    write(folder / "checkpoint.safetensors", trained)
    write(folder / "decoder.safetensors", bare | {"transformer.wte.weight": old})
    write(folder / "tower.npz", {n.replace("vision_encoder.", "visual."): tensors[n] for n in tower})
    (tmp_path / "config.json").write_text(json.dumps(DECODER))
    (tmp_path / "tokenizer.json").write_bytes(WORDS)
    return folder, tensors | {"lang_encoder.transformer.wte.weight": table}


@pytest.fixture
def convert_all(tmp_path, checkpoint):
    """A function: the arguments that convert the three files, with more arguments at the end."""

    def go(*more):
        inputs = sorted(checkpoint[0].iterdir())
        beside = ["--config", tmp_path / "config.json", "--tokenizer", tmp_path / "tokenizer.json"]
        return ["convert", "--from", "open_flamingo", *inputs, "--to", tmp_path / "out", *beside, *more]

    return go


def test_a_whole_checkpoint_completes_a_prompt(tmp_path, capsys, checkpoint, convert_all):
    assert run(*convert_all()) == 0
    model = load_checkpoint(tmp_path / "out")
    assert model.config == whole()
    picture = np.random.default_rng(0).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    result = tinyflamingo.complete(model, [picture, "hello", EOC, picture[::-1].copy(), "Output:"], max_tokens=5)
    assert result["phi"] == [1, 1, 1, 2, 2, 2, 2, 2, 2, 2, 2]
    assert result["prompt_tokens"][:4] == ["<image>", "hello", "<EOC>", "<image>"]
    assert len(result["log_probs"]) == len(result["tokens"]) <= 5
    other = tinyflamingo.complete(model, [picture, "hello", EOC, 255 - picture, "Output:"], max_tokens=5)
    assert other["log_probs"] != result["log_probs"]


def test_a_converted_model_gets_the_crop_from_files_and_arrays(tmp_path, capsys, convert_all):
    """The command line and the door give the model the same pixels: those of Pillow's bicubic crop."""
    assert run(*convert_all()) == 0
    card = json.loads((tmp_path / "out" / "model.json").read_bytes())
    assert card["config"]["vision"]["preparation"] == ["crop", "bicubic", 1.0]
    image, _ = picture("RGB", "wide")
    image.save(tmp_path / "a.png")
    model, pixels = tinyflamingo.load(tmp_path / "out"), np.asarray(image)
    crop = np.asarray(image.resize((26, 8), Image.Resampling.BICUBIC))[:, 9:17]

    def scores(medium):
        return tinyflamingo.complete(model, [medium, "Output:"], 4)["log_probs"]

    capsys.readouterr()
    line = ["complete", "<image>Output:", tmp_path / "a.png", "--checkpoint", tmp_path / "out", "--json"]
    assert run(*line, "--max-tokens", "4") == 0
    assert json.loads(capsys.readouterr().out)["log_probs"] == scores(pixels) == scores(crop)
    assert scores(np.stack([pixels] * 2)) == scores(np.stack([crop] * 2))
    assert scores(load_picture(tmp_path / "a.png", 8)) != scores(crop)


def test_mapped_weights_are_not_copied(tmp_path, convert_all):
    assert run(*convert_all()) == 0
    array = load_checkpoint(tmp_path / "out").frozen["language"]["block_0"]["w_1"]
    while array.base is not None and not isinstance(array, np.memmap):
        array = array.base
    assert isinstance(array, np.memmap)


def test_generation_with_caches_equals_one_pass(tmp_path, convert_all):
    """With both caches, each new token has the log-probability that one pass over all tokens gives."""
    from tinyflamingo.model.flamingo import encode_and_resample, flamingo
    from tinyflamingo.model.generate import generate, log_softmax_allowed
    from tinyflamingo.model.interleave import encode_document, make_batch

    assert run(*convert_all()) == 0
    model = load_checkpoint(tmp_path / "out")
    picture = np.random.default_rng(0).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    batch = make_batch([encode_document(["a b", picture, "c"], model.tokenizer, complete=False)], left=True)
    visual = encode_and_resample(model, batch.media)
    (tokens,), (scores,) = generate(model, batch, visual, 6)
    row = np.concatenate([batch.tokens[0], tokens])[None]
    phi = np.concatenate([batch.phi[0], np.ones(len(tokens), int)])[None]
    logits = flamingo(model.params, model.frozen, row, phi, visual, model.config, parts=model.parts)
    logits = log_softmax_allowed(logits)[0]
    own = logits[batch.tokens.shape[1] - 1 : -1] if tokens else logits[:0]
    np.testing.assert_allclose(scores, own[np.arange(len(tokens)), tokens], atol=1e-4)


def test_a_whole_checkpoint_is_exported(tmp_path, checkpoint, convert_all):
    assert run(*convert_all()) == 0
    assert run("convert", tmp_path / "out", "--to", "open_flamingo", tmp_path / "back.safetensors") == 0
    exported, tensors = files.read_arrays(tmp_path / "back.safetensors"), checkpoint[1]
    assert set(exported) == set(tensors)
    for name, array in tensors.items():
        np.testing.assert_array_equal(exported[name], array, err_msg=name)


def test_a_full_state_dict_has_second_names(checkpoint):
    """`old_decoder_blocks` and `gated_cross_attn_layers` hold the same tensors. Different ones are refused."""
    _, tensors = checkpoint
    second = {
        n.replace("transformer.blocks.", "old_decoder_blocks.").replace("decoder_layer.", ""): a
        for n, a in tensors.items()
        if ".decoder_layer." in n
    }
    second |= {
        n.replace("transformer.blocks.", "gated_cross_attn_layers.").replace("gated_cross_attn_layer.", ""): a
        for n, a in tensors.items()
        if ".gated_cross_attn_layer." in n
    }
    assert open_flamingo.gather([tensors | second], "mosaic_gpt").keys() == tensors.keys()
    wrong = {n: a + 1 for n, a in second.items()}
    with pytest.raises(UserError, match="is in the files twice, with different numbers"):
        open_flamingo.gather([tensors | wrong], "mosaic_gpt")


def test_names_and_shapes_of_openflamingo_3b():
    """CLIP ViT-L/14 and MPT-1B with a gated block before each of its 24 blocks. Only shapes."""
    language = decoder_names.hugging_face_config({"model_type": "mosaic_gpt"} | PUBLISHED["mosaic_gpt"][0])
    config = FlamingoConfig(
        vision=ViTConfig(patch=14, width=1024, layers=24, heads=16, side=224, norm_features=False, **PICTURES),
        text_tower=TextTowerConfig(vocab_size=language.vocab_size, joint_width=768),
        resampler=PortResamplerConfig(1024, 1024, layers=6, heads=8, key_size=64, latents=64, frames=0),
        language=language,
        xattn=PortXattnConfig(heads=8, key_size=64),
    )
    shapes = {row.theirs: row.shape for row in open_flamingo.checkpoint_rows(config)}
    gated = "lang_encoder.transformer.blocks.23.gated_cross_attn_layer."
    assert shapes[gated + "attn.to_q.weight"] == (512, 2048)
    assert shapes[gated + "attn.to_kv.weight"] == (1024, 1024)
    assert shapes[gated + "ff.1.weight"] == (8192, 2048)
    assert shapes[gated + "attn_gate"] == (1,)
    assert shapes["vision_encoder.conv1.weight"] == (1024, 3, 14, 14)
    assert shapes["vision_encoder.positional_embedding"] == (257, 1024)
    assert shapes["vision_encoder.transformer.resblocks.23.attn.in_proj_weight"] == (3072, 1024)
    parts = {"vision_encoder.": 303_966_208, "perceiver.": 63_019_008, gated: 36_708_354}
    for prefix, count in parts.items():
        assert sum(int(np.prod(s)) for n, s in shapes.items() if n.startswith(prefix)) == count, prefix


# ---------------------------------------------------------------- mistakes


def test_tensors_that_do_not_fit_are_one_line_and_write_nothing(tmp_path, capsys, checkpoint, convert_all):
    tensors = dict(files.read_arrays(checkpoint[0] / "decoder.safetensors"))
    tensors["transformer.blocks.0.mlp.mlp_up.bias"] = np.zeros(48, np.float32)
    del tensors["transformer.blocks.2.ln_1.weight"]
    tensors["transformer.ln_f.weight"] = np.zeros(25, np.float32)
    write(checkpoint[0] / "decoder.safetensors", tensors)
    error = error_of(capsys, *convert_all())
    for part in (
        "1 missing: lang_encoder.transformer.blocks.2.decoder_layer.ln_1.weight (24,)",
        "1 unknown: lang_encoder.transformer.blocks.0.decoder_layer.mlp.mlp_up.bias (48,)",
        "lang_encoder.transformer.ln_f.weight is (25,), expected (24,)",
    ):
        assert part in error
    assert not (tmp_path / "out").exists()


def test_a_cut_or_exchanged_file_is_refused(tmp_path, convert_all):
    assert run(*convert_all()) == 0
    path = tmp_path / "out" / "weights.safetensors"
    data = path.read_bytes()
    path.write_bytes(data[:-100])
    with pytest.raises(UserError, match="outside the file"):
        load_checkpoint(tmp_path / "out")
    write(path, {"params/eoc": np.zeros(3, np.float32)})
    with pytest.raises(UserError, match="its header differs"):
        load_checkpoint(tmp_path / "out")


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["--from", "flamingo", "x.npz", "--to", "y.npz"], "--from is 'flamingo' but must be one of"),
        (["x.npz", "--to", "y.npz"], "convert --from PEER FILE ... --to OUT"),
        (["--from", "open_flamingo", "x.npz", "--to", "transformers", "y.npz"], "convert --from PEER FILE"),
        (["x.npz", "--to", "timmy", "y.npz"], "--to is 'timmy' but must be one of"),
        (["x.npz", "--to", "open_flamingo", "y.pt"], "must end in .safetensors or .npz"),
        (["--from", "flamingo-mini", "x.npz", "--to", "y.pt"], "neither a resampler (latents) nor a gated block"),
        (["--from", "flamingo-mini", "none.npz", "--to", "y.npz"], "no such file"),
        (["--from", "transformers", "x.npz", "--to", "y.npz"], "no config.json beside the weights: give one with"),
        (["--from", "flamingo-mini", "x.npz", "x.npz", "--to", "y.npz"], "one file or folder at a time"),
        (["x.npz", "--to", "flamingo-mini", "y.npz"], "cannot read x.json"),
    ],
)
def test_mistakes_are_one_line(tmp_path, capsys, monkeypatch, arguments, message):
    monkeypatch.chdir(tmp_path)
    np.savez("x.npz", a=np.zeros(3))
    assert message in error_of(capsys, "convert", *arguments)
    assert [p.name for p in tmp_path.iterdir()] == ["x.npz"]


@pytest.fixture
def resampler(tmp_path, random_tensors):
    """The arguments that convert a file with a resampler in flamingo-mini's names."""
    config = peers.with_conventions(FlamingoConfig(), "flamingo-mini").resampler
    write(tmp_path / "theirs.npz", random_tensors(names.resampler_rows("flamingo-mini", config), np.float32))
    return ["convert", "--from", "flamingo-mini", tmp_path / "theirs.npz", "--head-size", "32", "--to"]


@pytest.mark.parametrize("content", ["precious", "[]", '{"model_type": "opt"}', '{"part": 1, "peer": 2, "config": 3}'])
def test_another_json_is_not_overwritten(tmp_path, capsys, resampler, content):
    (tmp_path / "config.json").write_text(content)
    assert "a file that convert did not write is there" in error_of(capsys, *resampler, tmp_path / "config.npz")
    assert (tmp_path / "config.json").read_text() == content and not (tmp_path / "config.npz").exists()


def test_our_part_is_overwritten(tmp_path, resampler):
    assert run(*resampler, tmp_path / "ours.npz") == run(*resampler, tmp_path / "ours.npz") == 0


def test_a_head_size_of_0_is_refused(tmp_path, capsys, resampler):
    resampler[resampler.index("32")] = "0"
    assert "the head size is 0 but must be at least 1" in error_of(capsys, *resampler, tmp_path / "y.npz")


@pytest.mark.parametrize("config", [{}, {"config": None}, {"config": {"x": 1}}, {"config": {"activation": ["a"]}}])
@pytest.mark.parametrize("part, peer", [
    ("resampler", "flamingo-mini"), ("xattn", "flamingo-mini"), ("language", "transformers"), ("vision", "timm"),
])  # fmt: skip
def test_wrong_sizes_are_one_line(tmp_path, capsys, part, peer, config):
    np.savez(tmp_path / "part.npz", a=np.zeros(3))
    (tmp_path / "part.json").write_text(json.dumps({"part": part} | config))
    error = error_of(capsys, "convert", tmp_path / "part.npz", "--to", peer, tmp_path / "o.npz")
    assert f"part.json does not hold the sizes of a {part}" in error


def test_a_decoder_or_encoder_that_no_peer_has(tmp_path, capsys):
    np.savez(tmp_path / "part.npz", a=np.zeros(3))
    config = config_to_dict(FlamingoConfig())
    for part, peer, expected in (
        ("language", "transformers", "kind 'chinchilla'"),
        ("vision", "timm", "no array has a name that begins with vision/"),
    ):
        (tmp_path / "part.json").write_text(json.dumps({"part": part, "config": config[part]}))
        assert expected in error_of(capsys, "convert", tmp_path / "part.npz", "--to", peer, tmp_path / "o.npz")


def test_a_converted_model_goes_on_learning_from_own_data(tmp_path, capsys, convert_all):
    """`train --from`: the frozen parts and the tokenizer stay, and the result is a checkpoint again."""
    assert run(*convert_all()) == 0
    data, rows = tmp_path / "data", []
    data.mkdir()
    for i in range(40):
        pixels = np.random.default_rng(i).integers(0, 256, (12, 10, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(data / f"{i}.png")
        rows.append(json.dumps({"file": f"{i}.png", "text": ("hello", "red star")[i % 2]}))
    (data / "captions.jsonl").write_text("\n".join(rows))
    line = ["train", "--from", tmp_path / "out", "--data", data, "--steps", "2", "--out", tmp_path / "run"]
    assert run(*line) == 0
    assert "2-way 1-shot" in capsys.readouterr().out
    before, after = load_checkpoint(tmp_path / "out"), load_checkpoint(tmp_path / "run")
    assert after.info["data"]["mix"] == 1.0 and after.tokenizer.data == before.tokenizer.data
    old, new = (named_leaves(model.frozen) for model in (before, after))
    assert old.keys() == new.keys() and all(np.array_equal(old[name], new[name]) for name in old)
    assert any(
        not np.array_equal(a, b)
        for a, b in zip(*(named_leaves(m.params).values() for m in (before, after)), strict=True)
    )
    assert run(*line, "--side", "32") == 2
    assert "--side 32 does not fit" in capsys.readouterr().err
