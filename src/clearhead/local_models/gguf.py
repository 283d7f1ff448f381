"""convert(): a GGUF file as a model folder with safetensors in bfloat16."""

import os
from pathlib import Path

from clearhead.extras import needs


def convert(source: str, folder: str) -> None:
    """Write the model and the tokenizer of a GGUF file into a new folder. Nothing is downloaded.

    Time: 30 s of one core for 135 million parameters.
    """
    os.environ["HF_HUB_OFFLINE"] = "1"
    with needs("chat", "converting a GGUF file"):
        import accelerate as accelerate
        import gguf as gguf
        import torch
        from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig
        from transformers.utils import logging
    logging.disable_progress_bar()
    place, name = str(Path(source).parent), Path(source).name
    model = AutoModelForCausalLM.from_pretrained(
        place, gguf_file=name, dtype=torch.bfloat16, quantization_config=GgufConfig(dequantize=True)
    )
    model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(place, gguf_file=name).save_pretrained(folder)
