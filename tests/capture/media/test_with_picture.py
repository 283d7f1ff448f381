"""read_with_picture(): words and patches of one text, on small models of each kind, against their eager weights."""

from dataclasses import replace

import pytest
import torch
from PIL import Image

from clearhead import capture
from clearhead.errors import CaptureError, ModelError

from . import folders

TEXT = "a red kite flew"
BOUND = 256 * 2**-23  # float32, for logits of some hundreds
KINDS = {"llava": (folders.llava, (5, 5, 0)), "qwen2_vl": (folders.qwen2_vl, (4, 6, 2))}
KINDS["idefics3"] = (folders.idefics3, (3, 3, 2))


@pytest.fixture(scope="module", params=KINDS)
def seen(request, tmp_path_factory):
    make, place = KINDS[request.param]
    folder = folders.made(make, tmp_path_factory.mktemp(request.param))
    picture = folders.picture(folder / "picture.png")
    loaded = capture.load(folder)
    return loaded, capture.read_with_picture(loaded, TEXT, picture), picture, place


def exact(loaded, reading, picture):
    """The model's own weights, from its eager attention, on what its processor makes of the same prompt."""
    token = loaded.processor.image_token
    prompt = f"<s> <|vision_start|>{token}<|vision_end|> {TEXT}" if "pad" in token else f"{token}\n{TEXT}"
    inputs = loaded.processor(text=[prompt], images=[Image.open(picture)], return_tensors="pt")
    assert inputs["input_ids"][0].tolist() == reading.token_ids
    loaded.model.set_attn_implementation("eager")
    try:
        with torch.no_grad():
            return loaded.model(**inputs, output_attentions=True).attentions
    finally:
        loaded.model.set_attn_implementation("sdpa")


@pytest.mark.slow
def test_the_record_is_of_the_language_model_and_exact(seen):
    loaded, reading, picture, _ = seen
    assert loaded.takes_picture
    assert loaded.reads == "text"
    weights = exact(loaded, reading, picture)
    assert len(weights) == len(reading.record) == 2
    for matrix, table in zip(reading.record.values(), weights, strict=True):
        torch.testing.assert_close(matrix.to_dense(), table, rtol=0, atol=BOUND)
    assert reading.record.missed == []
    assert "2 layers in which patches attend to patches" in str(reading.note)


@pytest.mark.slow
def test_patches_have_names_and_are_special_and_words_are_not(seen):
    _, reading, _, (rows, cols, first) = seen
    (grid,) = reading.pictures
    assert (grid.rows, grid.cols, grid.first, grid.row_gap) == (rows, cols, first, 0)
    assert [reading.tokens[place] for place in grid.places()] == [f"{r},{c}" for r in range(rows) for c in range(cols)]
    assert all(reading.special[place] for place in grid.places())
    assert reading.tokens[-4:] == TEXT.split()
    assert not any(reading.special[-4:])
    assert reading.grid is None


@pytest.mark.slow
def test_the_pixels_are_the_picture_where_its_patches_are(seen):
    """The bright square is at a quarter to a half of each side."""
    _, reading, _, (rows, cols, _) = seen
    pixels = reading.pictures[0].pixels.float()
    assert pixels.shape[0] % rows == pixels.shape[1] % cols == 0
    assert pixels.shape[2] == 3
    row, col = (pixels[..., 1] == pixels[..., 1].max()).nonzero().float().mean(0).tolist()
    assert 0.2 < row / pixels.shape[0] < 0.5
    assert 0.15 < col / pixels.shape[1] < 0.5


@pytest.mark.slow
def test_what_the_model_and_the_record_say_is_kept(tmp_path):
    loaded = replace(capture.load(folders.made(folders.llava, tmp_path)), note="Its weights are random.")
    picture = folders.picture(tmp_path / "picture.png")
    assert str(capture.read_with_picture(loaded, TEXT, picture).note).startswith("Its weights are random. Not shown: ")
    with pytest.warns(RuntimeWarning, match="recording stopped"):
        reading = capture.read_with_picture(loaded, TEXT, picture, max_bytes=1)
    assert len(reading.record) == 0
    assert len(reading.record.missed) == 4  # two layers of the language model, and two of the picture's encoder
    assert reading.note == "Its weights are random."  # no layer was left out
    assert reading.record.read["input"] == len(reading.tokens)


@pytest.mark.slow
def test_a_tile_each_where_the_picture_is_cut(tmp_path):
    folder = folders.made(folders.idefics3, tmp_path)
    loaded = capture.load(folder)
    loaded.processor.image_processor.do_image_splitting = True
    loaded.processor.image_processor.size = {"longest_edge": 48}
    reading = capture.read_with_picture(loaded, TEXT, folders.picture(tmp_path / "a.png", 60, 60))
    assert [(grid.rows, grid.cols) for grid in reading.pictures] == [(3, 3)] * 5  # four tiles, and the whole
    assert reading.tokens[reading.pictures[4].first] == "4:0,0"
    square = [int(grid.pixels[..., 1].max()) for grid in reading.pictures]
    assert min(square[0], square[4]) > max(square[1:4])  # the bright square is in the first tile


@pytest.mark.slow
def test_what_cannot_be_read_is_one_sentence(tmp_path):
    loaded = capture.load(folders.made(folders.llava, tmp_path))
    picture = folders.picture(tmp_path / "a.png")
    for text, image, said in (
        (" ", picture, "text is empty"),
        ("<image> <image> kite", picture, "2 places for a picture"),
        ("a " * 200, picture, "with its picture, is 226 tokens long and"),
        (TEXT, tmp_path / "b.png", "does not exist"),
        (TEXT, b"not a picture", "cannot be read as a picture"),
    ):
        with pytest.raises(ModelError, match=said):
            capture.read_with_picture(loaded, text, image)
    with pytest.raises(ModelError, match="no picture was given"):
        capture.read(loaded, "<image> a kite")
    assert capture.read_with_picture(loaded, "a <image> kite", picture).pictures[0].first == 1
    assert len(capture.read(loaded, TEXT).tokens) == 4  # a text alone, as before
    with pytest.raises(ModelError, match="reads text alone, and was given a picture"):
        capture.read_with_picture(capture.load("induction"), TEXT, picture)
    loaded.model.config.image_token_id = 0
    with pytest.raises((CaptureError, ModelError)):
        capture.read_with_picture(loaded, TEXT, picture)
