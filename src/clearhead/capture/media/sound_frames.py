"""sound_frames(): map the keys of a speech model to seconds, to relate words and moments."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import Any

import torch
from torch import Tensor, nn

from clearhead.errors import CaptureError, OptionError
from clearhead.matrix import AttentionMatrix

_WHISPER_HOP, _RATE = 160, 16_000  # samples from one spectrum to the next, and per second, in every Whisper


@dataclass(frozen=True, slots=True)
class SoundFrames:
    """The keys of a speech model in time: key j covers the sound from `j * seconds` on.

    Attributes:
        seconds: the duration of one key.
    """

    seconds: float

    def times(self, A: AttentionMatrix) -> Tensor:
        """Return (B, H, L): the mean moment each token looks at, in seconds, weighted by its weights; NaN if empty.

        Args:
            A: a cross-attention of the decoder, (B, H, tokens, frames).
        """
        middles = (torch.arange(A.shape[3], device=A.device, dtype=torch.float32) + 0.5) * self.seconds
        sums = A @ torch.stack([middles, torch.ones_like(middles)], -1)
        return sums[..., 0].float() / sums[..., 1].float()

    def peaks(self, A: AttentionMatrix) -> Tensor:
        """Return (B, H, L): the moment each token looks at most, in seconds."""
        return (A.topk(1)[1][..., 0].float() + 0.5) * self.seconds

    def share(self, A: AttentionMatrix, start: float, stop: float) -> Tensor:
        """Return (B, H, L): the weight each token puts on the sound from `start` to `stop` seconds.

        A frame that is partly inside counts in part.

        Raises:
            OptionError: stop is not after start.
        """
        if not stop > start:
            raise OptionError(f"the sound from {start} s to {stop} s is empty. Give a stop after the start.")
        edges = torch.arange(A.shape[3] + 1, device=A.device, dtype=torch.float32) * self.seconds
        inside = edges.clamp(start, stop).diff() / self.seconds
        return (A @ inside).float()

    def words_at(self, A: AttentionMatrix, second: float) -> Tensor:
        """Return (B, H, L): the weight each token puts on the frame at one moment.

        Raises:
            OptionError: the sound is shorter.
        """
        frame = int(second // self.seconds)
        if not 0 <= frame < A.shape[3]:
            raise OptionError(f"{second} s is not in the sound, which lasts {A.shape[3] * self.seconds:.2f} s.")
        return A[:, :, :, frame]


def sound_frames(model: nn.Module) -> SoundFrames:
    """Return the duration of a speech model's keys, in seconds.

    Args:
        model: Whisper, or a model whose features are convolutions of the waveform (Wav2Vec2, HuBERT, WavLM).

    Raises:
        CaptureError: it is neither; make SoundFrames(seconds) yourself.

    Example:
        >>> from transformers import WhisperConfig
        >>> model = torch.nn.Linear(1, 1)
        >>> model.config = WhisperConfig()
        >>> sound_frames(model)
        SoundFrames(seconds=0.02)
    """
    config: Any = getattr(model, "config", None)
    if getattr(config, "model_type", None) == "whisper":
        return SoundFrames(2 * _WHISPER_HOP / _RATE)  # the second convolution has stride 2
    strides = getattr(config, "conv_stride", None)
    if isinstance(strides, list | tuple) and strides:
        return SoundFrames(prod(strides) / int(getattr(config, "sampling_rate", None) or _RATE))
    raise CaptureError(
        f"how many seconds a key of {type(model).__name__} covers is not known: it is not Whisper and has no "
        "conv_stride. Make SoundFrames(seconds) yourself."
    )
