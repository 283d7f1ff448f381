"""Pictures: a model of pictures loaded from a folder, one picture read, its patches where they belong."""

import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers as hf
from PIL import Image
from transformers.models.vit.image_processing_pil_vit import ViTImageProcessorPil

from clearhead import capture
from clearhead.errors import ModelError

from ..families import TINY_VIT

SIDE, PATCH = 20, 4


def saved(folder: Path, model: torch.nn.Module, **size: int) -> capture.Loaded:
    model.save_pretrained(folder)
    ViTImageProcessorPil(size=size or {"height": SIDE, "width": SIDE}, image_mean=[0.1, 0.2, 0.3]).save_pretrained(
        folder
    )
    return capture.load(folder)


@pytest.fixture(scope="module")
def vit(tmp_path_factory) -> capture.Loaded:
    torch.manual_seed(0)
    config = hf.ViTConfig(**{**TINY_VIT, "image_size": SIDE, "patch_size": PATCH})
    return saved(tmp_path_factory.mktemp("vit"), hf.ViTModel(config))


@pytest.fixture(scope="module")
def noise() -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8))


def test_the_patches_are_the_tokens(vit, noise):
    reading = capture.read_picture(vit, noise)
    assert vit.reads == "pictures"
    assert vit.tokenizer is None
    grid = reading.grid
    assert (grid.rows, grid.cols, grid.first) == (5, 5, 1)
    assert reading.tokens == ["[CLS]", *(f"{row},{col}" for row in range(5) for col in range(5))]
    assert reading.special == [True] + [False] * 25
    assert {A.shape for A in reading.record.values()} == {(1, 4, 26, 26)}
    assert reading.record.missed == []
    assert len(capture.scores(reading)) == 8


def test_the_pixels_are_those_the_model_saw(vit, noise):
    pixels = capture.read_picture(vit, noise).grid.pixels
    assert pixels.dtype == torch.uint8
    np.testing.assert_array_equal(pixels.numpy(), np.asarray(noise))  # nothing to resize, normalisation undone


def test_a_changed_patch_changes_its_own_token(vit, noise):
    """Which token a patch is: paint one, and see whose embedding moves."""
    painted = noise.copy()
    painted.paste((255, 0, 0), (3 * PATCH, 1 * PATCH, 4 * PATCH, 2 * PATCH))  # column 3, row 1
    seen = [vit.processor(image, return_tensors="pt")["pixel_values"] for image in (noise, painted)]
    with torch.no_grad():
        first, second = (vit.model.embeddings(pixels)[0] for pixels in seen)
    moved = (first != second).any(-1).nonzero().flatten().tolist()
    assert moved == [capture.read_picture(vit, noise).tokens.index("1,3")]


def test_equals_the_models_eager_weights(vit, noise):
    reading = capture.read_picture(vit, noise)
    vit.model.set_attn_implementation("eager")
    try:
        with torch.no_grad():
            pixels = vit.processor(noise, return_tensors="pt")["pixel_values"]
            exact = vit.model(pixel_values=pixels, output_attentions=True).attentions
    finally:
        vit.model.set_attn_implementation("sdpa")
    for matrix, weights in zip(reading.record.values(), exact, strict=True):
        torch.testing.assert_close(matrix.to_dense(), weights, rtol=0, atol=1e-6)


def test_paths_bytes_and_odd_pictures(vit, noise, tmp_path):
    path = tmp_path / "noise.png"
    noise.save(path)
    one = capture.read_picture(vit, path).grid.pixels
    assert torch.equal(one, capture.read_picture(vit, str(path)).grid.pixels)
    assert torch.equal(one, capture.read_picture(vit, path.read_bytes()).grid.pixels)
    for mode in ("RGBA", "L", "1", "P", "CMYK"):
        assert capture.read_picture(vit, noise.resize((7, 31)).convert(mode)).grid.pixels.shape == (SIDE, SIDE, 3)


def test_a_picture_lying_on_its_side_is_put_upright(vit, noise, tmp_path):
    turned = noise.transpose(Image.Transpose.ROTATE_90)
    tag = Image.Exif()
    tag[0x0112] = 6  # "turn me right by 90 degrees to look at me"
    turned.save(tmp_path / "turned.png", exif=tag)
    upright = capture.read_picture(vit, tmp_path / "turned.png").grid.pixels
    np.testing.assert_array_equal(upright.numpy(), np.asarray(noise))


FAMILIES = {
    "deit, two extra tokens": (lambda: hf.DeiTModel(hf.DeiTConfig(**TINY_VIT)), (3, 3, 2)),
    "dinov2 with registers": (
        lambda: hf.Dinov2WithRegistersModel(
            hf.Dinov2WithRegistersConfig(
                hidden_size=24, num_hidden_layers=2, num_attention_heads=4, image_size=12, patch_size=4,
                num_register_tokens=3,
            )
        ),
        (3, 3, 4),
    ),
    "siglip, no extra token": (lambda: hf.SiglipVisionModel(hf.SiglipVisionConfig(**TINY_VIT)), (3, 3, 0)),
    "clip, the half that looks": (
        lambda: hf.CLIPModel(
            hf.CLIPConfig(
                text_config={
                    "hidden_size": 24, "intermediate_size": 17, "num_hidden_layers": 1, "num_attention_heads": 4,
                    "vocab_size": 11,
                },
                vision_config=TINY_VIT,
            )
        ),
        (3, 3, 1),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", FAMILIES)
def test_other_families(name, noise, tmp_path):
    make, layout = FAMILIES[name]
    torch.manual_seed(0)
    reading = capture.read_picture(saved(tmp_path, make(), height=12, width=12), noise)
    assert (reading.grid.rows, reading.grid.cols, reading.grid.first) == layout
    assert len(reading.tokens) == 9 + layout[2]
    assert len(reading.record) == 2
    assert reading.record.missed == []
    pools = name.startswith("siglip")  # by an attention of one query, which is no patch
    assert ("its queries are not the picture's patches" in (reading.note or "")) == pools


def test_a_picture_longer_than_high(noise, tmp_path):
    torch.manual_seed(0)
    config = hf.ViTConfig(**{**TINY_VIT, "image_size": [12, 20]})
    reading = capture.read_picture(saved(tmp_path, hf.ViTModel(config), height=12, width=20), noise)
    assert (reading.grid.rows, reading.grid.cols) == (3, 5)
    assert reading.tokens[1:7] == ["0,0", "0,1", "0,2", "0,3", "0,4", "1,0"]


def test_windows_have_no_one_grid(noise, tmp_path):
    config = hf.SwinConfig(image_size=12, patch_size=1, embed_dim=12, depths=[1], num_heads=[2], window_size=3)
    loaded = saved(tmp_path, hf.SwinModel(config), height=12, width=12)
    with pytest.raises(ModelError, match="does not attend over one grid of patches"):
        capture.read_picture(loaded, noise)


def test_what_is_no_picture_is_refused(vit, demo, noise, tmp_path, monkeypatch):
    with pytest.raises(ModelError, match=r"nowhere\.png does not exist"):
        capture.read_picture(vit, tmp_path / "nowhere.png")
    text = tmp_path / "text.png"
    text.write_text("not a picture")
    with pytest.raises(ModelError, match="cannot be read as a picture"):
        capture.read_picture(vit, text)
    noise.save(tmp_path / "whole.png")
    with pytest.raises(ModelError, match="cannot be read as a picture"):
        capture.read_picture(vit, (tmp_path / "whole.png").read_bytes()[:300])
    with pytest.raises(ModelError, match="cannot be read as a picture"):
        capture.read_picture(vit, tmp_path)
    for most in (100, 300):  # of 400 pixels: Pillow raises for more than twice as many, and warns for fewer
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", most)
        with warnings.catch_warnings(action="ignore"), pytest.raises(ModelError, match=f"more than {most} pixels"):
            capture.read_picture(vit, tmp_path / "whole.png")


def test_the_patches_of_a_grid_whose_rows_end_with_a_token():
    assert capture.Grid(2, 3, 5, torch.zeros(2, 3, 3), row_gap=1).places() == [5, 6, 7, 9, 10, 11]


def test_text_and_pictures_are_not_mixed_up(vit, demo, noise):
    with pytest.raises(ModelError, match="reads text, not pictures"):
        capture.read_picture(demo, noise)
    with pytest.raises(ModelError, match="reads pictures, not text"):
        capture.read(vit, "a text")


def test_a_folder_without_a_picture_processor(vit, tmp_path):
    vit.model.save_pretrained(tmp_path)
    with pytest.raises(ModelError, match=r"preprocessor_config\.json"):
        capture.load(tmp_path)
