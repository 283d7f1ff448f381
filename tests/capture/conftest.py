"""The demo model, loaded once; transformers quiet."""

import pytest
import torch

from clearhead import capture

SENTENCE = "The animal didn't cross the street because it was too tired"


@pytest.fixture(scope="session")
def demo() -> capture.Loaded:
    return capture.load()


@pytest.fixture(scope="session")
def eager(demo):
    """The demo model's own eager weights on SENTENCE: a tuple of (1, 12, L, L), one per layer."""
    from transformers import AutoModel

    model = AutoModel.from_pretrained(capture.demo_folder(), attn_implementation="eager", local_files_only=True).eval()
    with torch.no_grad():
        return model(**demo.tokenizer(SENTENCE, return_tensors="pt"), output_attentions=True).attentions
