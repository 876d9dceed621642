"""timm's encoders and CLIP's tower: the peers' names, shapes and outputs, and export."""

import dataclasses

import numpy as np
import parity_vision as vision_parity
import pytest

from tinyflamingo import cli
from tinyflamingo.array_files import chunks, read_arrays
from tinyflamingo.data.preparation import CLIP
from tinyflamingo.errors import UserError
from tinyflamingo.interop import clip, timm
from tinyflamingo.interop.names import export_arrays, import_arrays, our_shapes
from tinyflamingo.interop.vit_names import PIXELS, vit_rows
from tinyflamingo.model.config import VisionConfig
from tinyflamingo.model.vision_encoder import normalise_pixels
from tinyflamingo.ops.hollow import HollowGenerator
from tinyflamingo.ops.tree import named_leaves
from tinyflamingo.variants.nf_resnets import ACTIVATIONS, TimmConfig, timm_encoder
from tinyflamingo.variants.paper import CLIP_VIT_L14
from tinyflamingo.variants.registry import in_form, init_part

NAMES = ["nf_resnet50", "dm_nfnet_f0", "nfnet_f0"]


@pytest.fixture(params=NAMES)
def small(request):
    """A small configuration with the conventions of one of timm's models."""
    if request.param == "nf_resnet50":
        more = {"stem": ((4, 2, 7),), "bottleneck": 0.25, "width": 16, **timm.RESNET}
        return TimmConfig(stages=((8, 1, 1), (16, 2, 2)), **more)
    more = timm.DM if request.param.startswith("dm_") else timm.OWN
    return TimmConfig(stem=((2, 2, 3), (4, 1, 3)), stages=((8, 1, 1), (16, 2, 2)), group_size=4, width=12, **more)


# ---------------------------------------------------------------- with the peers' packages


@pytest.mark.parametrize("name", NAMES)
def test_outputs_of_timm(name):
    pytest.importorskip("timm")
    assert vision_parity.encoder(name, np.float32) <= 1e-4
    assert vision_parity.encoder(name, np.float64) <= 1e-9
    assert vision_parity.encoder(name, np.float64, (32, 96)) <= 1e-9  # all sizes even: the padding's odd pixel matters


@pytest.mark.parametrize(
    "name, change",
    [
        ("nfnet_f0", {"odd_pixel": "end"}),
        ("dm_nfnet_f0", {"odd_pixel": "start"}),
        ("dm_nfnet_f0", {"activation": "relu"}),
        ("nf_resnet50", {"stem_pool": False}),
    ],
)
def test_a_wrong_convention_changes_the_output(name, change, random_tensors):
    """So the comparison above can notice each of them."""
    sizes = {"group_size": 8} if "nfnet" in name else {"group_size": 512, "bottleneck": 0.25}
    stem = ((16, 2, 7),) if name == "nf_resnet50" else ((2, 2, 3), (4, 1, 3), (8, 1, 3), (16, 2, 3))
    conventions = {"nf_resnet50": timm.RESNET, "dm_nfnet_f0": timm.DM, "nfnet_f0": timm.OWN}[name]
    config = TimmConfig(stem=stem, stages=vision_parity.STAGES, width=96, **sizes, **conventions)
    frozen = timm.import_encoder(random_tensors(timm.encoder_rows(config), np.float32), config)
    x = np.random.default_rng(1).standard_normal((1, 32, 64, 3)).astype(np.float32)
    right = timm_encoder(frozen["vision"], x, config)
    wrong = timm_encoder(frozen["vision"], x, dataclasses.replace(config, **change))
    assert wrong.shape != right.shape or np.abs(wrong - right).max() > 1e-4


@pytest.mark.parametrize("name", ["dm_nfnet_f0", "dm_nfnet_f6", "nfnet_f0", "nf_resnet50"])
def test_real_names_and_shapes_of_timm(name):
    """All parameters of timm's model are rows of our table, with the same name and shape. No arrays are made."""
    torch, timm_package = pytest.importorskip("torch"), pytest.importorskip("timm")
    with torch.device("meta"):
        theirs = timm_package.create_model(name, num_classes=0)
    want = {n: tuple(p.shape) for n, p in theirs.state_dict().items()}
    assert {row.theirs: row.shape for row in timm.encoder_rows(timm.timm_model(name))} == want


@pytest.mark.parametrize("name", NAMES)
def test_timm_loads_what_we_export_and_computes_the_same(name):
    torch, _ = pytest.importorskip("torch"), pytest.importorskip("timm")
    theirs, config = vision_parity.small(name)
    rng = np.random.default_rng(0)
    vision = init_part(rng, config, np.float64)
    for path, leaf in named_leaves(vision).items():
        leaf[...] = leaf + 0.2 * rng.standard_normal(leaf.shape) + 0.3 * (path.endswith("skip_init_gain"))
    tensors = {n: torch.from_numpy(np.array(a)) for n, a in timm.export_encoder(vision, config).items()}
    theirs.double().load_state_dict(tensors)  # strict: no name is missing and none is unknown
    x = rng.standard_normal((2, 32, 64, 3))
    with torch.no_grad():
        want = theirs.eval().forward_features(torch.from_numpy(x.transpose(0, 3, 1, 2).copy())).numpy()
    gain = ACTIVATIONS[config.activation].gain if timm.is_folded(config) else 1.0
    got = timm_encoder(vision, x, config) / gain
    np.testing.assert_allclose(got, want.transpose(0, 2, 3, 1).reshape(got.shape), rtol=1e-8, atol=1e-9)


@pytest.mark.parametrize("norm_features", [False, True])
@pytest.mark.parametrize("activation", ["quick_gelu", "gelu_erf"])
def test_outputs_of_open_clip(activation, norm_features):
    pytest.importorskip("open_clip")
    assert max(vision_parity.tower(activation, norm_features, np.float32)) <= 1e-4
    assert max(vision_parity.tower(activation, norm_features, np.float64)) <= 1e-9


# ---------------------------------------------------------------- without the packages


@pytest.mark.parametrize(
    "name, parameters, some_shapes",
    [
        ("nf_resnet50", 25_557_032 - 2049 * 1000, {"stem.conv.weight": (64, 3, 7, 7)}),
        ("dm_nfnet_f0", 71_489_284 - 3073 * 1000, {"stem.conv4.bias": (128,), "stages.2.5.skipinit_gain": ()}),
        ("nfnet_f0", 71_489_272 - 3073 * 1000, {"stages.1.1.conv2b.weight": (256, 128, 3, 3)}),
        ("dm_nfnet_f6", 438_359_116 - 3073 * 1000, {"stages.3.20.attn_last.fc1.weight": (768, 1536, 1, 1)}),
    ],
)  # fmt: skip
def test_published_sizes_of_timm(name, parameters, some_shapes):
    """The number of parameters without the classifier, and some shapes of the published files."""
    shapes = {row.theirs: row.shape for row in timm.encoder_rows(timm.timm_model(name))}
    assert sum(int(np.prod(shape)) for shape in shapes.values()) == parameters
    assert {n: shapes[n] for n in some_shapes} == some_shapes


@pytest.mark.parametrize("name", NAMES)
def test_the_table_gives_the_encoder_of_the_configuration(name):
    config = timm.timm_model(name)
    ours = {n: a.shape for n, a in named_leaves(init_part(HollowGenerator(), config)).items()}
    made = our_shapes(timm.encoder_rows(config))
    skips = {n for n in ours if n.endswith("skip_init_gain")} if timm.is_folded(config) else set()
    assert made == {n: shape for n, shape in ours.items() if n not in skips}


def test_published_sizes_of_clip():
    """The image tower of OpenAI's ViT-L/14."""
    rows = vit_rows(CLIP_VIT_L14, 768)
    shapes = {row.theirs: row.shape for row in rows}
    assert sum(int(np.prod(shape)) for shape in shapes.values()) == 303_966_208
    assert shapes["visual.conv1.weight"] == (1024, 3, 14, 14) and shapes["visual.proj"] == (1024, 768)
    assert shapes["visual.transformer.resblocks.23.attn.in_proj_weight"] == (3072, 1024)
    ours = {n: a.shape for n, a in named_leaves(init_part(HollowGenerator(), CLIP_VIT_L14)).items()}
    made = {n.removeprefix("vision/"): shape for n, shape in our_shapes(rows).items() if n.startswith("vision/")}
    assert made == ours


def test_round_trip(small, random_tensors):
    """Import and export give the same numbers: SkipInit and gains are folded and unfolded."""
    tensors = random_tensors(timm.encoder_rows(small))
    back = timm.export_encoder(timm.import_encoder(tensors, small)["vision"], small)
    assert list(back) == list(tensors)
    for name, array in tensors.items():
        np.testing.assert_allclose(back[name], array, rtol=1e-10, err_msg=name)


def test_a_classifier_is_left_out_and_the_dtype_stays_float32(small, random_tensors):
    tensors = random_tensors(timm.encoder_rows(small), np.float32)
    frozen = timm.import_encoder(tensors | {"head.fc.weight": np.zeros((10, small.width))}, small)
    assert {a.dtype for a in named_leaves(frozen).values()} == {np.dtype(np.float32)}
    assert frozen["feature_scale"].shape == (small.width,)


def test_an_error_names_all_tensors_that_do_not_fit(small, random_tensors):
    tensors = random_tensors(timm.encoder_rows(small))
    last = "stages.1.1.conv3.weight"
    wrong = {n: a for n, a in tensors.items() if n != last} | {"stages.9.0.conv1.bias": np.zeros(3)}
    wrong["stages.0.0.conv1.bias"] = np.zeros(77)
    with pytest.raises(UserError) as caught:
        timm.import_encoder(wrong, small)
    for part in (last, "stages.9.0.conv1.bias", "stages.0.0.conv1.bias is (77,)"):
        assert part in str(caught.value)


def test_a_skip_gain_of_zero_is_exported(small, random_tensors):
    vision = timm.import_encoder(random_tensors(timm.encoder_rows(small)), small)["vision"]
    vision["stage_1_block_1"]["skip_init_gain"] = np.zeros(())
    tensors = timm.export_encoder(vision, small)
    assert all(np.all(np.isfinite(a)) for a in tensors.values())
    x = np.random.default_rng(0).standard_normal((1, 16, 16, 3))
    again = timm.import_encoder(tensors, small)["vision"]
    np.testing.assert_allclose(timm_encoder(again, x, small), timm_encoder(vision, x, small), rtol=1e-9, atol=1e-12)


def test_other_conventions_are_refused():
    config = VisionConfig()
    with pytest.raises(UserError, match="timm has other conventions"):
        timm.export_encoder(init_part(np.random.default_rng(0), config), config)
    exact = in_form(config, TimmConfig, stem=((16, 2, 3), (48, 1, 3)))
    assert "stages.0.0.conv1.weight" in timm.export_encoder(init_part(np.random.default_rng(0), exact), exact)


@pytest.mark.parametrize("name", ["nf_regnet_b0", "nfnet_l0", "resnet50", "nfnet_f7"])
def test_other_models_are_refused(name):
    with pytest.raises(UserError, match=f"{name}.*nf_resnet50"):
        timm.timm_model(name)


def test_a_tower_of_clip_round_trip(random_tensors):
    config = dataclasses.replace(CLIP_VIT_L14, width=8, layers=2, heads=2, side=28)
    rows = vit_rows(config, 6)
    tensors = random_tensors(rows)
    back = export_arrays(rows, import_arrays(rows, tensors, "clip"), "clip")
    for name, array in tensors.items():
        np.testing.assert_array_equal(back[name], array, err_msg=name)


def _whole_clip(random_tensors, config, dtype=np.float64):
    """A file of CLIP: the image tower and some tensors of the text tower."""
    return random_tensors(vit_rows(config, 6), dtype) | {
        "token_embedding.weight": np.zeros((9, 6)),
        "logit_scale": np.ones(()),
    }


def test_a_file_of_clip(random_tensors):
    """Sizes come from the tensors, the text tower is left out, pixels are standardised as in CLIP."""
    config = dataclasses.replace(CLIP_VIT_L14, width=128, layers=2, heads=2, side=28, pixels=PIXELS, preparation=CLIP)
    tensors = _whole_clip(random_tensors, config)
    tower, frozen = clip.import_tower(tensors)
    assert tower == config and frozen["picture_projection"].shape == (128, 6)
    back = clip.export_tower(tower, frozen)
    assert set(back) == {n for n in tensors if n.startswith("visual.")}
    for name, array in back.items():
        np.testing.assert_array_equal(array, tensors[name])
    white = np.full((1, 1, 1, 3), 255, np.uint8)
    want = (1 - np.array([0.48145466, 0.4578275, 0.40821073])) / [0.26862954, 0.26130258, 0.27577711]
    np.testing.assert_allclose(normalise_pixels(white, *tower.pixels)[0, 0, 0], want, rtol=1e-6)


def test_a_file_that_is_not_clips(random_tensors):
    with pytest.raises(UserError, match="visual.conv1.weight is missing"):
        clip.import_tower({"conv1.weight": np.zeros(3)})
    tensors = _whole_clip(random_tensors, dataclasses.replace(CLIP_VIT_L14, width=128, layers=1, heads=2, side=28))
    del tensors["visual.ln_post.bias"]
    with pytest.raises(UserError, match=r"missing: visual.ln_post.bias \(128,\)"):
        clip.import_tower(tensors)


# ---------------------------------------------------------------- convert


@pytest.mark.parametrize("name", [*NAMES, "dm_nfnet_f3"])
def test_sizes_and_preparation_are_found_by_the_tensors(name):
    config = timm.timm_model(name)
    shapes = {row.theirs: np.broadcast_to(np.float32(0), row.shape) for row in timm.encoder_rows(config)}
    assert timm.read_config(shapes) == config


@pytest.mark.parametrize("lost", ["stages.0.0.conv2.weight", "final_conv.weight", "stem.conv2.weight"])
def test_sizes_need_certain_tensors(lost):
    rows = timm.encoder_rows(timm.timm_model("nfnet_f0"))
    shapes = {row.theirs: np.broadcast_to(np.float32(0), row.shape) for row in rows if row.theirs != lost}
    with pytest.raises(UserError, match="missing"):
        timm.read_config(shapes)
    with pytest.raises(UserError, match="missing"):
        timm.read_config({})


def _write(path, tensors):
    shapes = {n: a.shape for n, a in tensors.items()}
    path.write_bytes(b"".join(bytes(chunk) for chunk in chunks(path.suffix, shapes, tensors.get)))
    return path


@pytest.mark.parametrize("peer", ["timm", "clip", "open_clip"])
def test_convert_in_both_directions(peer, tmp_path, random_tensors, capsys):
    if peer == "timm":
        sizes = {"stages": vision_parity.STAGES, "group_size": 8, "width": 48}
        config = TimmConfig(stem=((2, 2, 3), (4, 1, 3), (8, 1, 3), (16, 2, 3)), **sizes, **timm.DM)
        tensors = random_tensors(timm.encoder_rows(config), np.float32)
    else:
        config = dataclasses.replace(CLIP_VIT_L14, width=128, layers=1, heads=2, side=28)
        tensors = random_tensors(vit_rows(config, 6), np.float32)
    theirs, ours, back = _write(tmp_path / "a.safetensors", tensors), tmp_path / "b.npz", tmp_path / "c.safetensors"
    assert cli.main(["convert", "--from", peer, str(theirs), "--to", str(ours)]) == 0
    assert f"vision of {peer}" in capsys.readouterr().out and ours.with_suffix(".json").is_file()
    assert cli.main(["convert", str(ours), "--to", peer, str(back)]) == 0
    again = read_arrays(back)
    assert set(again) == set(tensors)
    for name, array in tensors.items():
        np.testing.assert_allclose(again[name], array, rtol=1e-5, atol=1e-7, err_msg=name)
    other = "clip" if peer != "clip" else "open_clip"
    capsys.readouterr()
    assert cli.main(["convert", str(ours), "--to", other, str(tmp_path / "d.npz")]) == 2
    assert cli.main(["convert", str(ours), "--to", "flamingo-mini", str(tmp_path / "d.npz")]) == 2
    assert "vision" in capsys.readouterr().err and not (tmp_path / "d.npz").exists()
