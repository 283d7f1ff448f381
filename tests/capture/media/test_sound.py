"""read_sound(): the words of a small Whisper over the seconds of a sound."""

from copy import deepcopy
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import tensor

from clearhead import capture
from clearhead.capture.media.sound import _peaks, _samples
from clearhead.errors import ModelError

from . import folders

TEXT = "a red kite"


@pytest.fixture(scope="module")
def whisper(tmp_path_factory):
    return capture.load(folders.made(folders.whisper, tmp_path_factory.mktemp("whisper")))


@pytest.mark.slow
def test_words_look_at_frames_and_the_record_is_exact(whisper, tmp_path):
    sound = folders.sound(tmp_path / "a.wav", 0.7)
    reading = capture.read_sound(whisper, sound, TEXT)
    assert whisper.reads == "sound"
    assert (whisper.takes_picture, whisper.has_decoder) == (False, False)
    assert reading.tokens[:2] == ["0.00\u00a0s", "0.02\u00a0s"]
    assert len(reading.tokens) == 50
    assert reading.decoder.tokens == ["<s>", *TEXT.split()]
    heard = whisper.processor(_samples(sound)[0].numpy(), sampling_rate=16_000, return_tensors="pt")["input_features"]
    whisper.model.set_attn_implementation("eager")
    with torch.no_grad():
        given = {"input_features": heard, "decoder_input_ids": tensor([reading.decoder.token_ids])}
        out = whisper.model(**given, output_attentions=True)
    whisper.model.set_attn_implementation("sdpa")
    for layer, table in enumerate(out.cross_attentions):
        matrix = reading.record[f"decoder.layers.{layer}.encoder_attn"]
        torch.testing.assert_close(matrix.to_dense(), table, rtol=0, atol=4e-6)
    places = reading.record.positions("decoder.layers.0.encoder_attn")[-1]
    assert (places.queries.sequence, places.keys.sequence) == ("decoder", "input")
    assert reading.record.missed == []


@pytest.mark.slow
def test_the_sound_is_loud_where_its_file_is(whisper, tmp_path):
    sound = capture.read_sound(whisper, folders.sound(tmp_path / "a.wav", 0.7), TEXT).sound
    assert (sound.seconds, sound.duration) == (0.02, 0.7)
    assert sound.peaks.shape == (50,)
    assert sound.peaks[35:].max() == 0  # after 0.7 s
    assert int(sound.peaks.argmax()) in (16, 17, 18)  # it swells to the middle


@pytest.mark.parametrize("width", [1, 2, 3, 4])
@pytest.mark.parametrize("channels", [1, 2])
def test_samples_of_every_width_and_the_mean_of_the_channels(tmp_path, width, channels):
    plain, _ = _samples(folders.sound(tmp_path / "a.wav", 0.13))
    path = folders.sound(tmp_path / "b.wav", 0.13, channels=channels, width=width)
    for given in (path, str(path), path.read_bytes()):
        samples, rate = _samples(given)
        assert rate == 16_000
        np.testing.assert_allclose(samples, plain, rtol=0, atol=2 / 2**7 if width == 1 else 2 / 2**15)


def test_the_mean_of_two_channels_is_heard(tmp_path):
    mono, _ = _samples(folders.sound(tmp_path / "a.wav", 0.13))
    left, _ = _samples(folders.sound(tmp_path / "b.wav", 0.13, channels=2, silent=[1]))
    np.testing.assert_allclose(left, mono / 2, rtol=0, atol=1e-6)


@pytest.mark.parametrize("width", [2, 3])
def test_a_file_that_ends_within_a_sample_is_heard_up_to_there(tmp_path, width):
    content = folders.sound(tmp_path / "a.wav", 0.13, channels=2, width=width).read_bytes()
    whole, cut = _samples(content)[0], _samples(content[:-1])[0]
    np.testing.assert_array_equal(cut, whole[:-1])


def test_the_drawn_wave_is_as_high_below_zero_as_above():
    assert _peaks(tensor([0.1, -0.5, 0.25, 0.2]), 2, 3).tolist() == pytest.approx([0.5, 0.25, 0])


@pytest.mark.slow
def test_a_reading_of_sound_keeps_the_note_of_its_model(whisper, tmp_path):
    reading = capture.read_sound(replace(whisper, note="Its head is random."), folders.sound(tmp_path / "a.wav"), TEXT)
    assert reading.note == "Its head is random."


@pytest.mark.slow
def test_a_tokenizer_with_more_words_than_the_model_is_one_sentence(whisper, tmp_path):
    tokenizer = deepcopy(whisper.tokenizer)
    tokenizer.add_tokens(["zeppelin"])
    with pytest.raises(ModelError, match="gives token 22, and the model knows 22 tokens"):
        capture.read_sound(replace(whisper, tokenizer=tokenizer), folders.sound(tmp_path / "a.wav"), "a zeppelin")


@pytest.mark.slow
def test_what_cannot_be_heard_is_one_sentence(whisper, tmp_path):
    good = folders.sound(tmp_path / "good.wav")
    (tmp_path / "text.wav").write_text("no sound")
    (tmp_path / "short.wav").write_bytes(good.read_bytes()[:30])
    for sound, text, said in (
        (good, " ", "text is empty"),
        (good, "a \udce9", "half a character"),
        (good, "a " * 30, "the target is 31 tokens long and"),
        (tmp_path / "none.wav", TEXT, "is not there"),
        (tmp_path / "text.wav", TEXT, "cannot be read as a sound"),
        (tmp_path / "short.wav", TEXT, "cannot be read as a sound"),
        (tmp_path, TEXT, "cannot be read as a sound"),
        (folders.sound(tmp_path / "fast.wav", rate=44_100), TEXT, "44100 samples a second and .* hears 16000"),
        (folders.sound(tmp_path / "long.wav", 1.3), TEXT, r"lasts 1\.3 s and .* at most 1 s"),
        (folders.sound(tmp_path / "empty.wav", 0), TEXT, "is empty"),
    ):
        with pytest.raises(ModelError, match=said):
            capture.read_sound(whisper, sound, text)
    with pytest.raises(ModelError, match="was given only words"):
        capture.read(whisper, TEXT)
    with pytest.raises(ModelError, match="reads sound"):
        capture.read_picture(whisper, b"")
    with pytest.raises(ModelError, match="does not hear sound"):
        capture.read_sound(capture.load("induction"), good, TEXT)
