"""picture_tokens(), sound_frames(): words to patches and back, words to seconds, on small models of transformers."""

import pytest
import torch
import transformers as hf
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import WhitespaceSplit

from clearhead.capture import (
    PictureTokens,
    SoundFrames,
    load,
    observe,
    picture_pixels,
    picture_tokens,
    read,
    sound_frames,
)
from clearhead.errors import CaptureError, OptionError
from clearhead.matrix import AttentionMatrix

PATCH, WORD = 39, 7
TEXT = {"vocab_size": 40, "hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 17}
TEXT |= {"num_key_value_heads": 2, "max_position_embeddings": 128, "bos_token_id": 1, "eos_token_id": 2}
VISION = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 17}
VISION |= {"image_size": 20, "patch_size": 4}


def llava():
    config = hf.LlavaConfig(
        vision_config=hf.CLIPVisionConfig(**VISION), text_config=hf.LlamaConfig(**TEXT), image_token_id=PATCH
    )
    ids = torch.tensor([[1, 5, *[PATCH] * 25, 7, 8, 9], [1, 5, 6, *[PATCH] * 25, 7, 8]])
    inputs = {"input_ids": ids, "pixel_values": torch.randn(2, 3, 20, 20)}
    return hf.LlavaForConditionalGeneration(config), inputs, [(2, 5, 5, 0), (3, 5, 5, 1)]


def qwen2_vl():
    rope = {"rope_type": "default", "mrope_section": [1, 1, 1], "rope_theta": 1e4}
    tokens = {"image_token_id": PATCH, "video_token_id": 38, "vision_start_token_id": 37, "vision_end_token_id": 36}
    config = hf.Qwen2VLConfig(
        text_config=TEXT | {"rope_parameters": rope},
        vision_config={
            "depth": 2, "embed_dim": 16, "hidden_size": 24, "num_heads": 2, "mlp_ratio": 2, "patch_size": 4,
            "spatial_merge_size": 2, "temporal_patch_size": 2,
        },
        **tokens,
    )  # fmt: skip
    ids = torch.tensor([[1, 37, *[PATCH] * 15, 36, 37, *[PATCH] * 2, 36, 8, 9]])
    inputs = {"input_ids": ids, "pixel_values": torch.randn(68, 96), "mm_token_type_ids": (ids == PATCH).int()}
    inputs["image_grid_thw"] = torch.tensor([[1, 6, 10], [1, 4, 2]])
    return hf.Qwen2VLForConditionalGeneration(config), inputs, [(2, 3, 5, 0), (19, 2, 1, 0)]


def idefics3():
    config = hf.Idefics3Config(
        vision_config=VISION | {"image_size": 24}, text_config={"model_type": "llama", **TEXT},
        scale_factor=2, image_token_id=PATCH, pad_token_id=0,
    )  # fmt: skip
    ids = torch.tensor([[1, 5, *[PATCH] * 9, 7, *[PATCH] * 9, 7, 8, 9]])
    inputs = {"input_ids": ids, "pixel_values": torch.randn(1, 2, 3, 24, 24)}
    return hf.Idefics3ForConditionalGeneration(config), inputs, [(2, 3, 3, 0), (12, 3, 3, 0)]


def pixtral():
    """Two pictures, of 3 × 4 and of 2 × 2 tokens: token 38 ends each row, and 36 a picture."""
    vision = {"model_type": "pixtral", **VISION, "image_size": 24}
    config = hf.LlavaConfig(
        vision_config=vision, text_config={"model_type": "mistral", **TEXT, "head_dim": 6}, image_token_id=PATCH,
        vision_feature_select_strategy="full", vision_feature_layer=-1,
    )  # fmt: skip
    wide, narrow = [PATCH] * 4, [PATCH] * 2
    ids = torch.tensor([[1, 5, *wide, 38, *wide, 38, *wide, 36, *narrow, 38, *narrow, 36, 7, 8]])
    sizes = torch.tensor([[12, 16], [8, 8]])
    inputs = {"input_ids": ids, "pixel_values": torch.randn(2, 3, 12, 16), "image_sizes": sizes}
    return hf.LlavaForConditionalGeneration(config), inputs, [(2, 3, 4, 0), (17, 2, 2, 0)]


SIGLIP = {"model_type": "siglip_vision_model", **VISION, "vision_use_head": False}


def paligemma():
    """All of the picture and of the prompt see one another."""
    text = {"model_type": "gemma", **TEXT, "head_dim": 6}
    config = hf.PaliGemmaConfig(
        vision_config=SIGLIP | {"image_size": 12}, text_config=text, image_token_id=PATCH, projection_dim=24
    )
    ids = torch.tensor([[*[PATCH] * 9, 1, 5, 7, 8], [*[PATCH] * 9, 1, 4, 3, 8]])
    inputs = {"input_ids": ids, "pixel_values": torch.randn(2, 3, 12, 12), "token_type_ids": torch.zeros_like(ids)}
    return hf.PaliGemmaForConditionalGeneration(config), inputs, [(0, 3, 3, 0), (0, 3, 3, 1)]


def gemma3():
    """Patches are pooled, and the tokens of a picture see one another, also past the window."""
    text = TEXT | {"head_dim": 6, "sliding_window": 5, "layer_types": ["sliding_attention", "full_attention"]}
    config = hf.Gemma3Config(
        vision_config=SIGLIP | {"image_size": 24}, text_config=text, image_token_id=PATCH, mm_tokens_per_image=9,
        boi_token_id=38, eoi_token_id=37,
    )  # fmt: skip
    ids = torch.tensor([[1, 5, 38, *[PATCH] * 9, 37, 7, 8, 9, 3]])
    inputs = {"input_ids": ids, "pixel_values": torch.randn(1, 3, 24, 24), "token_type_ids": (ids == PATCH).long()}
    return hf.Gemma3ForConditionalGeneration(config), inputs, [(3, 3, 3, 0)]


def internvl():
    vision = VISION | {"image_size": [16, 16], "patch_size": [4, 4]}
    config = hf.InternVLConfig(
        vision_config=vision, text_config={"model_type": "qwen2", **TEXT}, image_token_id=PATCH, image_seq_length=4
    )
    ids = torch.tensor([[1, 5, *[PATCH] * 4, 7, *[PATCH] * 4, 8, 9]])
    inputs = {"input_ids": ids, "pixel_values": torch.randn(2, 3, 16, 16)}
    return hf.InternVLForConditionalGeneration(config), inputs, [(2, 2, 2, 0), (7, 2, 2, 0)]


def smolvlm():
    config = hf.SmolVLMConfig(
        vision_config=VISION | {"image_size": 24}, text_config={"model_type": "llama", **TEXT}, scale_factor=2,
        image_token_id=PATCH, pad_token_id=0,
    )  # fmt: skip
    ids = torch.tensor([[1, 5, *[PATCH] * 9, 7, *[PATCH] * 9, 7, 8, 9]])
    inputs = {"input_ids": ids, "pixel_values": torch.randn(1, 2, 3, 24, 24)}
    return hf.SmolVLMForConditionalGeneration(config), inputs, [(2, 3, 3, 0), (12, 3, 3, 0)]


def mllama():
    """Words read the picture by cross-attention, tile by tile."""
    vision = {"hidden_size": 16, "num_hidden_layers": 2, "num_global_layers": 1, "attention_heads": 2}
    vision |= {"intermediate_size": 17, "image_size": 12, "patch_size": 4, "max_num_tiles": 2, "vision_output_dim": 32}
    vision |= {"intermediate_layers_indices": [0], "supported_aspect_ratios": [[1, 1], [1, 2]]}
    text = TEXT | {
        "pad_token_id": 0,
        "cross_attention_layers": [1],
        "rope_parameters": {"rope_type": "default", "rope_theta": 1e4},
    }
    config = hf.MllamaConfig(vision_config=vision, text_config=text, image_token_index=PATCH)
    inputs = {"input_ids": torch.tensor([[1, PATCH, 5, 7, 8]]), "pixel_values": torch.randn(1, 1, 2, 3, 12, 12)}
    inputs |= {"aspect_ratio_ids": torch.tensor([[1]]), "aspect_ratio_mask": torch.tensor([[[1, 0]]])}
    inputs["cross_attention_mask"] = torch.tensor([[[[0, 0]], *[[[1, 0]]] * 4]])
    return hf.MllamaForConditionalGeneration(config), inputs


STRESSED = [pytest.param(make, marks=pytest.mark.stress) for make in (paligemma, gemma3, internvl, smolvlm)]


@pytest.fixture(scope="module", params=[llava, qwen2_vl, idefics3, pixtral, *STRESSED], ids=lambda make: make.__name__)
def seen(request):
    torch.manual_seed(0)
    model, inputs, places = request.param()
    model.eval().set_attn_implementation("sdpa")
    with torch.no_grad(), observe(model) as record:
        model(**inputs)
    assert record.missed == []
    model.set_attn_implementation("eager")
    with torch.no_grad():
        exact = model(**inputs, output_attentions=True).attentions
    return model, inputs, places, record, exact


def patches_of(inputs, picture):
    """The positions of a picture's patches, from its tokens alone."""
    text = inputs["input_ids"][picture.entry, picture.start : picture.stop]
    return picture.start + (text == PATCH).nonzero()[:, 0]


@pytest.mark.slow
def test_words_see_the_patches_of_their_picture_and_are_read_from_them(seen):
    model, inputs, places, record, exact = seen
    pictures = picture_tokens(model, inputs)
    assert [(p.start, p.rows, p.cols, p.entry) for p in pictures] == places
    layers = [A for A in record.values() if A.shape[2] == inputs["input_ids"].shape[1]]
    assert len(layers) == 2
    for A, dense in zip(layers, exact, strict=True):
        for p in pictures:
            word = A.shape[2] - 1
            table = dense[p.entry]
            looks, patches = p.seen_by(A, word), patches_of(inputs, p)
            assert looks.shape == (4, p.rows, p.cols)
            torch.testing.assert_close(looks.flatten(1), table[:, word, patches], rtol=0, atol=4e-6)
            place = p.start + p.cols + p.row_gap  # the first patch of the second row
            torch.testing.assert_close(p.readers(A, 1, 0), table[:, :, place], rtol=0, atol=4e-6)
            torch.testing.assert_close(p.seen_from(A, 1, 0), table[:, place], rtol=0, atol=4e-6)
            after = table[:, p.stop :, patches].mean(1)
            torch.testing.assert_close(p.received(A).flatten(1), after, rtol=0, atol=4e-6)
            torch.testing.assert_close(p.received(A, [word]), looks, rtol=0, atol=0)


@pytest.mark.slow
def test_a_generation_has_rows_for_its_new_words():
    torch.manual_seed(0)
    model, inputs, _ = llava()
    with observe(model.eval()) as record:
        model.generate(**inputs, max_new_tokens=4, do_sample=False, eos_token_id=None, pad_token_id=0)
    first, second = picture_tokens(model, inputs)
    A = record.generated()[-1]
    assert A.shape == (2, 4, 33, 33)
    for picture in (first, second):
        assert float(picture.seen_by(A, 32).sum()) > 0


class Model(torch.nn.Module):
    def __init__(self, **config):
        super().__init__()
        self.config = type("Config", (), config)()


def found(text, **config):
    return picture_tokens(Model(image_token_id=PATCH, **config), {"input_ids": torch.tensor([text])})


def test_runs_of_picture_tokens_are_pictures_also_at_both_ends():
    assert found([PATCH] * 4 + [WORD] + [PATCH]) == [PictureTokens(0, 2, 2), PictureTokens(5, 1, 1)]
    assert found([WORD] * 3) == []


def test_what_is_no_grid_is_refused_and_a_given_grid_is_used():
    with pytest.raises(CaptureError, match=r"6 picture tokens at positions 1\.\.6 of text 0 do not make a grid"):
        found([WORD] + [PATCH] * 6)
    model, inputs = Model(image_token_id=PATCH), {"input_ids": torch.tensor([[WORD] + [PATCH] * 12])}
    assert picture_tokens(model, inputs, (2, 3)) == [PictureTokens(1, 2, 3), PictureTokens(7, 2, 3)]
    with pytest.raises(CaptureError, match="do not make grids of 5 × 2"):
        picture_tokens(model, inputs, (5, 2))
    with pytest.raises(CaptureError, match="latents"):
        found([PATCH] * 64, perceiver_config={})
    with pytest.raises(CaptureError, match="names no picture token"):
        picture_tokens(Model(), inputs)
    with pytest.raises(OptionError, match="input_ids"):
        picture_tokens(model, {})


def test_pictures_in_other_forms_than_one_grid_are_refused_with_what_to_ask():
    model, ids = Model(image_token_id=PATCH, image_grid_pinpoints=[[8, 8]]), torch.tensor([[WORD] + [PATCH] * 16])
    with pytest.raises(CaptureError, match=r"at several sizes.*row_gap=1"):
        picture_tokens(model, {"input_ids": ids})
    rows = Model(image_token_id=PATCH, vision_config=type("Vision", (), {"model_type": "pixtral", "patch_size": 4})())
    with pytest.raises(CaptureError, match="rows of a picture are not known"):
        picture_tokens(rows, {"input_ids": ids})
    with pytest.raises(CaptureError, match="are not 4 rows of 4 with a token after each"):
        picture_tokens(rows, {"input_ids": ids, "image_sizes": torch.tensor([[16, 16]])})
    text = torch.tensor([[PATCH, PATCH, 5, PATCH, PATCH, 5]])
    assert picture_tokens(rows, {"input_ids": text}, (2, 2)) == [PictureTokens(0, 2, 2, row_gap=1)]
    merged = {"input_ids": text, "image_sizes": torch.tensor([[16, 16]])}
    rows.config.spatial_merge_size = 2  # as in Mistral 3: a token for each 2 × 2 patches
    assert picture_tokens(rows, merged) == [PictureTokens(0, 2, 2, row_gap=1)]


@pytest.mark.slow
def test_a_picture_read_by_cross_attention_is_in_the_record_and_is_no_token_of_the_text():
    torch.manual_seed(0)
    model, inputs = mllama()
    with torch.no_grad(), observe(model.eval()) as record:
        model(**inputs)
    assert record.missed == []
    assert record["model.language_model.layers.1.cross_attn"].shape == (1, 4, 5, 20)  # 2 tiles of 9 patches and 1 class
    with pytest.raises(CaptureError, match="cross-attention"):
        picture_tokens(model, inputs)


def test_frames_of_a_video_are_a_grid_each():
    model = Model(video_token_id=38, vision_config=type("Vision", (), {"spatial_merge_size": 2})())
    inputs = {"input_ids": torch.tensor([[WORD] + [38] * 12]), "video_grid_thw": torch.tensor([[2, 4, 6]])}
    assert picture_tokens(model, inputs) == [PictureTokens(1, 2, 3), PictureTokens(7, 2, 3)]


def test_patches_and_words_that_are_not_there_are_named():
    q = torch.randn(1, 2, 11, 3)
    A, picture = AttentionMatrix(q, q), PictureTokens(2, 2, 3)
    with pytest.raises(OptionError, match=r"no patch \(2, 0\): the grid has 2 rows and 3 columns"):
        picture.readers(A, 2, 0)
    with pytest.raises(OptionError, match="no query 11"):
        picture.seen_by(A, 11)
    with pytest.raises(OptionError, match="not of the picture's encoder"):
        PictureTokens(8, 2, 3).seen_by(A, 0)
    with pytest.raises(OptionError, match="no words are named"):
        picture.received(A, [])
    with pytest.raises(OptionError, match=r"positions 2\.\.7 of text 1, and the matrix has 1 texts"):
        PictureTokens(2, 2, 3, entry=1).readers(A, 1, 0)


def test_pixels_are_as_they_were_before_the_processor():
    pixels = torch.rand(3, 5, 7)
    mean, std = [0.5, 0.4, 0.3], [0.2, 0.3, 0.1]
    given = (pixels - torch.tensor(mean)[:, None, None]) / torch.tensor(std)[:, None, None]
    torch.testing.assert_close(picture_pixels(given, mean, std), pixels.permute(1, 2, 0))
    assert (picture_pixels(given).min(), picture_pixels(given).max()) == (0, 1)


@pytest.mark.slow
def test_whisper_words_look_at_seconds():
    torch.manual_seed(0)
    size = {"encoder_layers": 2, "decoder_layers": 2, "encoder_attention_heads": 4, "decoder_attention_heads": 4}
    size |= {"encoder_ffn_dim": 17, "decoder_ffn_dim": 17, "max_source_positions": 31, "max_target_positions": 20}
    tokens = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "decoder_start_token_id": 1}
    model = hf.WhisperModel(hf.WhisperConfig(vocab_size=40, d_model=24, num_mel_bins=8, **size, **tokens)).eval()
    inputs = {"input_features": torch.randn(2, 8, 62), "decoder_input_ids": torch.tensor([[1, 5, 7], [1, 9, 4]])}
    with torch.no_grad(), observe(model) as record:
        model(**inputs)
    A = record["decoder.layers.1.encoder_attn"]
    dense, frames = A.to_dense(), sound_frames(model)
    assert A.shape == (2, 4, 3, 31)
    assert frames == SoundFrames(0.02)
    middles = 0.02 * torch.arange(31) + 0.01
    torch.testing.assert_close(frames.times(A), dense @ middles)
    torch.testing.assert_close(frames.peaks(A), middles[dense.argmax(-1)])
    torch.testing.assert_close(frames.share(A, 0.1, 0.15), dense[..., 5:7].sum(-1) + dense[..., 7] / 2)
    torch.testing.assert_close(frames.words_at(A, 0.61), dense[..., 30])
    with pytest.raises(OptionError, match=r"lasts 0\.62 s"):
        frames.words_at(A, 0.63)
    with pytest.raises(OptionError, match="is empty"):
        frames.share(A, 0.2, 0.2)


def test_the_mean_moment_is_weighted_by_what_the_frames_are_given():
    torch.manual_seed(0)
    query, key = torch.randn(1, 2, 3, 5), torch.randn(1, 2, 7, 5)
    mask = torch.ones(3, 7, dtype=torch.bool)
    mask[1] = False
    A = AttentionMatrix(query, key, allow=mask, sinks=torch.tensor([0.5, -1.0]))  # a sink takes part of each row
    weights, middles = A.to_dense(), 0.02 * torch.arange(7) + 0.01
    times = SoundFrames(0.02).times(A)
    torch.testing.assert_close(times[:, :, [0, 2]], (weights @ middles / weights.sum(-1))[:, :, [0, 2]])
    assert times[:, :, 1].isnan().all()  # it looks nowhere


def test_the_seconds_of_other_models():
    slow = Model(model_type="wav2vec2", conv_stride=(5, 2, 2, 2, 2, 2, 2), sampling_rate=8_000)
    assert sound_frames(slow) == SoundFrames(0.04)
    assert sound_frames(Model(model_type="wav2vec2", conv_stride=(5, 2, 2, 2, 2, 2, 2))) == SoundFrames(0.02)
    with pytest.raises(CaptureError, match="not Whisper"):
        sound_frames(Model(model_type="llama"))


@pytest.mark.parametrize("make", [llava, idefics3], ids=lambda make: make.__name__)
def test_a_vision_language_model_is_loaded_and_reads_a_text(make, tmp_path, capfd):
    words = {word: number for number, word in enumerate(["<unk>", "a", "red", "kite"])}
    tokenizer = Tokenizer(WordLevel(words, unk_token="<unk>"))
    tokenizer.pre_tokenizer = WhitespaceSplit()
    hf.PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="<unk>").save_pretrained(tmp_path)
    make()[0].save_pretrained(tmp_path)
    capfd.readouterr()
    loaded = load(tmp_path)
    assert loaded.reads == "text"
    reading = read(loaded, "a red kite")
    assert "LOAD REPORT" not in capfd.readouterr().err  # the language head is not used, which concerns nobody
    assert [A.shape for A in reading.record.values()] == [(1, 4, 3, 3)] * 2
    assert reading.record.missed == []
