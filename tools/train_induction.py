"""Train the small causal model that ships with the package: `.venv/bin/python tools/train_induction.py [folder]`.

It reads characters and is taught one thing: lines of random characters, said twice or more. Whoever can predict the
second time must have learnt to look back to where the last character stood before and to copy what came after it:
an induction head (Olsson et al. 2022). Two layers are the fewest that can.

About two minutes on one core. The same seed gives the same model on one machine; another may round otherwise.
"""

import json
import string
import sys
import time
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

SHIPPED = Path(__file__).parent.parent / "src" / "clearhead" / "capture" / "models" / "induction"
CHARACTERS = string.ascii_lowercase + string.digits + " .,;:!?'\"-()\n"
START, UNKNOWN = "<s>", "<?>"
VOCABULARY = [START, UNKNOWN, *CHARACTERS]
LENGTH, BATCH, STEPS, WARM, RATE = 96, 64, 1000, 100, 3e-3


def lines(make: torch.Generator) -> tuple[Tensor, Tensor]:
    """Random lines, each said again and again: tokens (BATCH, LENGTH), and which of them could be known (boolean)."""
    tokens = torch.zeros(BATCH, LENGTH, dtype=torch.long)
    known = torch.zeros(BATCH, LENGTH, dtype=torch.bool)
    for row in range(BATCH):
        before, period = (int(torch.randint(low, high, (), generator=make)) for low, high in ((0, 24), (4, 44)))
        prefix = torch.randint(2, len(VOCABULARY), (before,), generator=make)
        line = torch.randint(2, len(VOCABULARY), (period,), generator=make)
        said = torch.cat([prefix, line.repeat(LENGTH // period + 1)])[: LENGTH - 1]
        tokens[row, 1:] = said
        known[row, 1 + before + period + 1 :] = True  # from the second character of the second time on
    return tokens, known


def build() -> torch.nn.Module:
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(VOCABULARY),
        hidden_size=64,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=4,
        max_position_embeddings=512,
        bos_token_id=0,
        eos_token_id=None,
        pad_token_id=None,
        tie_word_embeddings=True,
    )
    return LlamaForCausalLM(config)


def train(model: torch.nn.Module) -> None:
    make = torch.Generator().manual_seed(0)
    optimiser = torch.optim.AdamW(model.parameters(), lr=RATE, weight_decay=0.01, betas=(0.9, 0.98))
    started = time.perf_counter()
    for step in range(STEPS):
        for group in optimiser.param_groups:
            group["lr"] = RATE * min((step + 1) / WARM, 1.0, (STEPS - step) / (0.3 * STEPS))
        tokens, known = lines(make)
        logits = model(input_ids=tokens).logits[:, :-1]
        losses = F.cross_entropy(logits.flatten(0, 1), tokens[:, 1:].flatten(), reduction="none").view(BATCH, -1)
        loss = losses[known[:, 1:]].mean()
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        if step % 100 == 0 or step == STEPS - 1:
            right = (logits.argmax(-1) == tokens[:, 1:])[known[:, 1:]].float().mean()
            spent = time.perf_counter() - started
            print(f"step {step:5}  loss {loss:.3f}  right {right:.1%}  {spent:.0f} s", flush=True)


def tokenizer() -> object:
    """A token a character, lower case; anything unheard of is one unknown."""
    from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    made = Tokenizer(models.WordLevel({token: index for index, token in enumerate(VOCABULARY)}, unk_token=UNKNOWN))
    made.normalizer = normalizers.Lowercase()
    made.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]"), "isolated")
    made.post_processor = processors.TemplateProcessing(
        single=f"{START} $A", pair=f"{START} $A $B", special_tokens=[(START, 0)]
    )
    made.decoder = decoders.Fuse()
    return PreTrainedTokenizerFast(
        tokenizer_object=made,
        bos_token=START,
        unk_token=UNKNOWN,
        model_max_length=512,
        clean_up_tokenization_spaces=False,
    )


def main() -> None:
    from clearhead import capture

    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else SHIPPED
    model = build()
    train(model.train())
    model.eval()
    model.model.save_pretrained(folder)
    config = json.loads((folder / "config.json").read_text())  # its head is tied, so it can write too
    (folder / "config.json").write_text(json.dumps({**config, "architectures": ["LlamaForCausalLM"]}, indent=2) + "\n")
    tokenizer().save_pretrained(folder)
    (folder / "model.safetensors").chmod(0o644)
    found = capture.induction_scores(model.model, vocab_size=len(VOCABULARY), length=40)
    print(json.dumps([[round(score, 3) for score in layer] for layer in found.tolist()]))
    print(f"{sum(file.stat().st_size for file in folder.iterdir()) / 1e3:.0f} kB in {folder}")


if __name__ == "__main__":
    main()
