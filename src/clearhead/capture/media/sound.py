"""read_sound(): run a sound through a speech model, with the words said in it, to relate words and seconds."""

from __future__ import annotations

import wave
from io import BytesIO
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from clearhead.capture.media.sound_frames import sound_frames
from clearhead.capture.models.input_checks import check_characters, check_vocabulary, running
from clearhead.capture.models.loading import Loaded
from clearhead.capture.models.reading import Reading, Sound, decoder_input
from clearhead.capture.observing import observe
from clearhead.errors import ModelError
from clearhead.messages import message

_SCALES = {1: 2**7, 2: 2**15, 3: 2**23, 4: 2**31}  # the largest amplitude for each number of bytes


def read_sound(loaded: Loaded, sound: str | Path | bytes, text: str, *, max_bytes: int | str | None = None) -> Reading:
    """Run a sound and the words that are said in it through a speech model and record every head.

    Args:
        loaded: from `load`, a Whisper model.
        sound: the path or the bytes of a WAV file without compression, at the model's sampling rate (16,000 samples a
            second); of several channels the mean is heard.
        text: the words, which the decoder reads, as in training. Not empty.
        max_bytes: as in `observe`; layers past it are listed in the record's `missed`.

    Returns:
        The Reading: its tokens are frames, its decoder's tokens are the words, and its `sound` says when each frame is.

    Raises:
        ModelError: the model does not hear sound; the text is empty or too long; or the sound cannot be read, has
            another rate, is empty, or is longer than the model hears at once (30 s).

    Memory: queries and keys of every layer; no weights are stored.
    """
    if loaded.reads != "sound":
        raise ModelError(
            message(
                "%(model)s does not hear sound. Leave the sound out, or give a Whisper model in a folder with its "
                "preprocessor_config.json.",
                model=loaded.name,
            )
        )
    if not text.strip():
        raise ModelError(message("text is empty. Give the words that are said in the sound."))
    check_characters(text)
    samples, rate = _samples(sound)
    name = _named(sound)
    _check_sound(loaded, name, samples, rate)
    decoder = decoder_input(loaded, text)
    check_vocabulary(loaded, decoder.token_ids)
    with running(loaded, "sound"):
        heard = loaded.processor(samples.numpy(), sampling_rate=rate, return_tensors="pt")["input_features"]
        with torch.inference_mode(), observe(loaded.model, max_bytes=max_bytes) as record:
            loaded.model(input_features=heard, decoder_input_ids=torch.tensor([decoder.token_ids]))
    seconds = sound_frames(loaded.model).seconds
    joined = record.joined()
    frames = joined.length("input")
    return Reading(
        record=joined,
        tokens=[f"{frame * seconds:.2f}\u00a0s" for frame in range(frames)],
        model_name=loaded.name,
        token_ids=list(range(frames)),
        special=[False] * frames,
        segments=[0] * frames,
        decoder=decoder,
        note=loaded.note,
        sound=Sound(seconds, len(samples) / rate, _peaks(samples, round(seconds * rate), frames)),
    )


def _named(sound: str | Path | bytes) -> str:
    return str(sound) if isinstance(sound, str | Path) else message("the sound")


def _samples(sound: str | Path | bytes) -> tuple[Tensor, int]:
    """Return (n,) float32 in -1..1, the mean of the channels, and the rate in samples a second."""
    name = _named(sound)
    try:
        with wave.open(BytesIO(sound) if isinstance(sound, bytes) else str(sound)) as file:
            width, channels, rate = file.getsampwidth(), file.getnchannels(), file.getframerate()
            content = file.readframes(file.getnframes())
    except FileNotFoundError as error:
        raise ModelError(message("%(name)s is not there. Give the path of a WAV file.", name=name)) from error
    except (wave.Error, EOFError, OSError, RuntimeError, ValueError) as error:
        raise ModelError(
            message(
                "%(name)s cannot be read as a sound (%(why)s). Give a WAV file: `ffmpeg -i sound -ar 16000 -ac 1 "
                "sound.wav` makes one.",
                name=name,
                why=str(error) or message("it ends too early"),
            )
        ) from error
    content = content[: len(content) // (width * channels) * width * channels]
    if width == 3:  # three bytes a sample: the upper three of four
        wide = np.zeros((len(content) // 3, 4), np.uint8)
        wide[:, 1:] = np.frombuffer(content, np.uint8).reshape(-1, 3)
        values = wide.view("<i4")[:, 0].astype(np.float32) / 2**31
    else:
        kind = {1: "u1", 2: "<i2", 4: "<i4"}[width]
        values = np.frombuffer(content, kind).astype(np.float32) / _SCALES[width] - (width == 1)
    return torch.from_numpy(values.reshape(-1, channels).mean(1)), rate


def _check_sound(loaded: Loaded, name: str, samples: Tensor, rate: int) -> None:
    right = int(loaded.processor.sampling_rate)
    if rate != right:
        raise ModelError(
            message(
                "%(name)s has %(rate)s samples a second and %(model)s hears %(right)s. Convert it: `ffmpeg -i sound "
                "-ar %(right)s -ac 1 sound.wav`.",
                name=name,
                rate=rate,
                model=loaded.name,
                right=right,
            )
        )
    if not len(samples):
        raise ModelError(message("%(name)s is empty. Give a sound of some seconds.", name=name))
    most = int(loaded.processor.n_samples)
    if len(samples) > most:
        raise ModelError(
            message(
                "%(name)s lasts %(long)s s and %(model)s hears at most %(most)s s at once. Cut it.",
                name=name,
                long=f"{len(samples) / rate:.1f}",
                model=loaded.name,
                most=f"{most / rate:.0f}",
            )
        )


def _peaks(samples: Tensor, step: int, frames: int) -> Tensor:
    """Return (frames,): the largest amplitude in each frame of `step` samples."""
    return F.pad(samples, (0, frames * step - len(samples))).abs().unflatten(0, (frames, step)).amax(1)
