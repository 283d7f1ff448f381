"""Folders of small models with random weights that see or hear, each with its tokenizer and its processor."""

import json
import wave
from pathlib import Path

import numpy as np
import torch
import transformers as hf
from PIL import Image
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Sequence, Split

WORDS = ["a", "red", "kite", "flew", "over", "the", "hill"]
SPECIAL = ["<unk>", "<s>", "</s>", "<image>", "<fake_token_around_image>", "<global-img>", "<row_1_col_1>"]
SPECIAL += ["<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>", "[IMG]", "[IMG_BREAK]", "[IMG_END]"]
IDS = {word: number for number, word in enumerate([*SPECIAL, *WORDS, "\n"])}
TEXT = {
    "vocab_size": len(IDS),
    "hidden_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "initializer_range": 0.6,
}
TEXT |= {"num_key_value_heads": 2, "intermediate_size": 17, "max_position_embeddings": 128, "bos_token_id": 1}
TEXT |= {"eos_token_id": 2}
VISION = {
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 17,
    "initializer_range": 0.6,
}
VISION |= {"image_size": 20, "patch_size": 4}
RATE = 16_000


def tokenizer(**names: str) -> hf.PreTrainedTokenizerFast:
    """A token for each word, and for each special token wherever it is."""
    made = Tokenizer(WordLevel(IDS, unk_token="<unk>"))
    made.pre_tokenizer = Sequence([Split(" ", "removed"), Split("\n", "isolated")])  # type: ignore[assignment]
    extra = {"additional_special_tokens": SPECIAL[3:], "extra_special_tokens": names} if names else {}
    return hf.PreTrainedTokenizerFast(
        tokenizer_object=made, unk_token="<unk>", bos_token="<s>", eos_token="</s>", pad_token="</s>",
        model_max_length=128, **(extra or {"additional_special_tokens": SPECIAL[3:]}),
    )  # fmt: skip


def llava(folder: Path) -> Path:
    """One picture of 5 × 5 patches."""
    from transformers.models.llava.image_processing_pil_llava import LlavaImageProcessorPil

    config = hf.LlavaConfig(
        vision_config=hf.CLIPVisionConfig(**VISION), text_config=hf.LlamaConfig(**TEXT), image_token_id=IDS["<image>"]
    )
    hf.LlavaForConditionalGeneration(config).save_pretrained(folder)
    side = {"height": 20, "width": 20}
    LlavaImageProcessorPil(size=side, crop_size=side, image_mean=[0.4, 0.5, 0.6]).save_pretrained(folder)
    tokenizer().save_pretrained(folder)
    settings = {"processor_class": "LlavaProcessor", "patch_size": 4, "num_additional_image_tokens": 1}
    settings |= {"vision_feature_select_strategy": "default", "image_token": "<image>"}
    (folder / "processor_config.json").write_text(json.dumps(settings))
    return folder


def qwen2_vl(folder: Path) -> Path:
    """One picture, of as many patches as its size makes, merged in twos; its family also reads videos."""
    from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

    rope = {"rope_type": "default", "mrope_section": [1, 1, 1], "rope_theta": 1e4}
    config = hf.Qwen2VLConfig(
        text_config=TEXT | {"rope_parameters": rope},
        vision_config={
            "depth": 2, "embed_dim": 16, "hidden_size": 24, "num_heads": 2, "mlp_ratio": 2, "patch_size": 4,
            "spatial_merge_size": 2, "temporal_patch_size": 2,
        },
        image_token_id=IDS["<|image_pad|>"], video_token_id=IDS["<|video_pad|>"],
        vision_start_token_id=IDS["<|vision_start|>"], vision_end_token_id=IDS["<|vision_end|>"],
    )  # fmt: skip
    hf.Qwen2VLForConditionalGeneration(config).save_pretrained(folder)
    size = {"shortest_edge": 64, "longest_edge": 1600}
    Qwen2VLImageProcessorPil(patch_size=4, merge_size=2, temporal_patch_size=2, size=size).save_pretrained(folder)
    made = tokenizer()
    made.chat_template = (
        "<s> {% for part in messages[0].content %}{% if part.type == 'image' %}<|vision_start|><|image_pad|>"
        "<|vision_end|>{% else %} {{ part.text }}{% endif %}{% endfor %}"
    )
    made.save_pretrained(folder)
    return folder


def idefics3(folder: Path) -> Path:
    """One picture of 3 × 3 tokens, not cut into tiles."""
    from transformers.models.idefics3.image_processing_pil_idefics3 import Idefics3ImageProcessorPil

    config = hf.Idefics3Config(
        vision_config=VISION | {"image_size": 24}, text_config={"model_type": "llama", **TEXT},
        scale_factor=2, image_token_id=IDS["<image>"], pad_token_id=0,
    )  # fmt: skip
    hf.Idefics3ForConditionalGeneration(config).save_pretrained(folder)
    side = {"longest_edge": 24}
    Idefics3ImageProcessorPil(size=side, max_image_size=side, do_image_splitting=False).save_pretrained(folder)
    tokenizer().save_pretrained(folder)
    settings = {"processor_class": "Idefics3Processor", "image_seq_len": 9}
    (folder / "processor_config.json").write_text(json.dumps(settings))
    return folder


def whisper(folder: Path) -> Path:
    """It hears one second as 50 frames."""
    size = {"encoder_layers": 2, "decoder_layers": 2, "encoder_attention_heads": 4, "decoder_attention_heads": 4}
    size |= {"encoder_ffn_dim": 17, "decoder_ffn_dim": 17, "max_source_positions": 50, "max_target_positions": 20}
    tokens = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "decoder_start_token_id": 1}
    config = hf.WhisperConfig(vocab_size=len(IDS), init_std=0.4, d_model=24, num_mel_bins=8, **size, **tokens)
    hf.WhisperModel(config).save_pretrained(folder)
    hf.WhisperFeatureExtractor(feature_size=8, chunk_length=1).save_pretrained(folder)
    tokenizer().save_pretrained(folder)
    return folder


def picture(path: Path, width: int = 60, height: int = 40) -> Path:
    """A picture file: a bright square on a darker ramp."""
    pixels = np.zeros((height, width, 3), np.uint8)
    pixels[..., 0] = np.linspace(20, 120, width)
    pixels[..., 2] = np.linspace(140, 40, height)[:, None]
    pixels[height // 4 : height // 2, width // 4 : width // 2] = (240, 200, 80)
    Image.fromarray(pixels).save(path)
    return path


def sound(
    path: Path,
    seconds: float = 0.7,
    rate: int = RATE,
    channels: int = 1,
    width: int = 2,
    silent: list[int] | None = None,
) -> Path:
    """A sound file: a tone that swells and fades, in every channel but the silent ones."""
    moments = np.arange(round(seconds * rate)) / rate
    tone = np.sin(2 * np.pi * 440 * moments) * np.sin(np.pi * moments / max(seconds, 1e-9)) ** 2
    kinds = {1: ("u1", 127, 128), 2: ("<i2", 2**15 - 1, 0), 4: ("<i4", 2**31 - 1, 0)}
    kind, scale, zero = kinds.get(width, kinds[4])
    tones = np.repeat(tone[:, None], channels, 1)
    tones[:, silent or []] = 0
    content = (tones * scale + zero).astype(kind).tobytes()
    if width == 3:
        content = np.frombuffer(content, np.uint8).reshape(-1, 4)[:, 1:].tobytes()
    with wave.open(str(path), "wb") as file:
        file.setnchannels(channels)
        file.setsampwidth(width)
        file.setframerate(rate)
        file.writeframes(content)
    return path


def made(make, folder: Path) -> Path:
    """The folder of a model with the same weights every time."""
    torch.manual_seed(0)
    return make(folder)


def with_media(place: Path) -> Path:
    """A folder with a model that sees, llava, and one that hears, whisper; kite.png, and the sound kite.wav."""
    for make in (llava, whisper):
        made(make, place / make.__name__)
    picture(place / "kite.png")
    sound(place / "kite.wav")
    return place
