"""Model folders that run code, read other files, or are damaged: each is refused in a sentence, and nothing runs."""

import contextlib
import json
import os
import pickle
import shutil
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from clearhead import capture
from clearhead.errors import ModelError

INDUCTION = Path(capture.__file__).parent / "models" / "induction"
Change = Callable[[Path], object]


class Trace:
    """Unpickled, it makes a folder `ran` inside the test's own folder."""

    def __init__(self, place: Path) -> None:
        self.place = str(place)

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (self.place,)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return Path(shutil.copytree(INDUCTION, tmp_path / "model"))


def pickled(folder: Path, name: str) -> None:
    (folder / name).write_bytes(pickle.dumps(Trace(folder.parent / "ran")))


def index(folder: Path, name: str, *, keep: bool = False) -> None:
    """An index that names this file for every weight."""
    from safetensors import safe_open

    with safe_open(folder / "model.safetensors", "pt") as weights:
        names = list(weights.keys())
    if not keep:
        (folder / "model.safetensors").unlink()
    made = {"metadata": {"total_size": 1}, "weight_map": dict.fromkeys(names, name)}
    (folder / "model.safetensors.index.json").write_text(json.dumps(made))


def settings(folder: Path, file: str = "config.json", **values: object) -> None:
    place = folder / file
    data = json.loads(place.read_text()) if place.exists() else {}
    place.write_text(json.dumps(data | values))


def replaced(name: str) -> Change:
    """Only this pickle, and no safetensors."""

    def change(folder: Path) -> None:
        (folder / "model.safetensors").unlink()
        pickled(folder, name)

    return change


def indexed(name: str) -> Change:
    def change(folder: Path) -> None:
        if name and "/" not in name:
            pickled(folder, name)
        elif name:
            pickled(folder.parent, Path(name).name)
        index(folder, name)

    return change


def linked(name: str, target: str = "outside") -> Change:
    def change(folder: Path) -> None:
        outside = folder.parent / target
        shutil.move(folder / name, outside)
        (folder / name).symlink_to(outside)

    return change


def adapter(folder: Path) -> None:
    pickled(folder, "adapter_model.bin")
    settings(folder, "adapter_config.json", peft_type="LORA", base_model_name_or_path="nobody/other")


def pipe(folder: Path) -> None:
    (folder / "tokenizer.json").unlink()
    os.mkfifo(folder / "tokenizer.json")


def weights(change: Callable[[bytes], bytes]) -> Change:
    def write(folder: Path) -> None:
        place = folder / "model.safetensors"
        place.write_bytes(change(place.read_bytes()))

    return write


def text(name: str, content: str) -> Change:
    return lambda folder: (folder / name).write_text(content)


def others_weights(folder: Path) -> None:
    """Tensors of one element, by the right names."""
    import torch
    from safetensors import safe_open
    from safetensors.torch import save_file

    with safe_open(folder / "model.safetensors", "pt") as found:
        names = list(found.keys())
    save_file({name: torch.zeros(1) for name in names}, folder / "model.safetensors", metadata={"format": "pt"})


CASES: dict[str, tuple[Change, str]] = {
    "index names a .bin": (indexed("pytorch_model.bin"), "index.json names pytorch_model.bin, which is not a"),
    "index names a .pt": (indexed("weights.pt"), "names weights.pt"),
    "index leads out": (indexed("../out.safetensors"), r"names \.\./out\.safetensors"),
    "index names a path": (indexed("/etc/out.safetensors"), "names /etc/out.safetensors"),
    "index names what is not there": (lambda f: index(f, "gone.safetensors"), "names gone.safetensors, which does not exist"),
    "index names nothing": (indexed(""), "names , which"),
    "a pickle named safetensors": (indexed("x.safetensors"), "damaged|not a safetensors file"),
    "pytorch_model.bin alone": (replaced("pytorch_model.bin"), "pytorch_model.bin may run code"),
    "a .pt alone": (replaced("model.pt"), "model.pt may run code"),
    "a .gguf alone": (replaced("model.gguf"), "model.gguf may run code"),
    "an adapter": (adapter, "adapter_config.json is a PEFT adapter"),
    "weights in the config": (lambda f: settings(f, transformers_weights="adapter_model.bin"), "config.json names weights"),
    "weights elsewhere": (lambda f: settings(f, transformers_weights="../x.safetensors"), "config.json names weights"),
    "a kernel of the Hub": (lambda f: settings(f, _attn_implementation="nobody/kernel"), "a kernel of the Hub"),
    "a nested kernel": (lambda f: settings(f, text_config={"attn_implementation": "a/b:c"}), "a kernel of the Hub"),
    "linked weights": (linked("model.safetensors"), "model.safetensors is a link that leads out of the model folder"),
    "linked config": (linked("config.json"), "config.json is a link that leads out of the model folder"),
    "linked tokenizer": (linked("tokenizer.json"), "tokenizer.json is a link that leads out of the model folder"),
    "a link to itself": (lambda f: (f / "vocab.txt").symlink_to(f / "vocab.txt"), "vocab.txt is a broken link"),
    "a device": (lambda f: (f / "vocab.txt").symlink_to("/dev/zero"), "vocab.txt is a link that leads out of"),
    "a pipe": (pipe, "tokenizer.json is a pipe"),
    "cut off": (weights(lambda data: data[:-100]), "cannot be loaded"),
    "cut off in the header": (weights(lambda data: data[:50]), "damaged or cut off"),
    "empty": (weights(lambda data: b""), "damaged or cut off"),
    "a header of 2^60 bytes": (weights(lambda data: struct.pack("<Q", 1 << 60) + data[8:]), "damaged or cut off"),
    "a header that is not JSON": (weights(lambda data: data[:8] + b"{" * 50 + data[58:]), "cannot be loaded"),
    "other shapes": (others_weights, "cannot be loaded"),
    "a list": (text("config.json", "[1, 2]"), "config.json is not a JSON object"),
    "NaN": (text("config.json", '{"hidden_size": NaN}'), "NaN is not a number"),
    "a long number": (text("config.json", f'{{"hidden_size": {"9" * 20_000}}}'), "config.json is not valid JSON"),
    "a deep config": (text("config.json", "[" * 200_000), "nested too deep"),
    "not UTF-8": (lambda f: (f / "config.json").write_bytes(b"\xff{}"), "config.json is not valid JSON"),
    "a million layers": (lambda f: settings(f, n_layer=10**6, num_hidden_layers=10**6), r"= 1e\+06"),
    "a billion labels": (lambda f: settings(f, num_labels=10**9), r"num_labels = 1e\+09"),
    "labels inside": (lambda f: settings(f, text_config={"num_labels": 10**9}), r"num_labels = 1e\+09"),
    "ten billion words": (lambda f: settings(f, vocab_size=10**10), r"vocab_size = 1e\+10"),
    "words less than none": (lambda f: settings(f, vocab_size=-7), "vocab_size = -7"),
    "layers less than none": (lambda f: settings(f, num_hidden_layers=-2), "num_hidden_layers = -2"),
    "a decoder of layers less than none": (lambda f: settings(f, decoder_layers=-2), "decoder_layers = -2"),
    "a kernel of experts": (lambda f: settings(f, experts_implementation="nobody/kernel"), "a kernel of the Hub"),
    "kernels by part": (lambda f: settings(f, _attn_implementation={"text_config": "a/b"}), "a kernel of the Hub"),
    "a size in words": (lambda f: settings(f, hidden_size="many", n_embd="many"), "cannot be loaded"),
    "a model type of nobody": (lambda f: settings(f, model_type="none-such"), "cannot be loaded"),
    "no tokenizer": (lambda f: [(f / name).unlink() for name in ("tokenizer.json", "tokenizer_config.json")], "cannot be loaded"),
    "a tokenizer that is a list": (text("tokenizer.json", "[]"), "cannot be loaded"),
    "tokenizer settings that are a list": (text("tokenizer_config.json", "[]"), "is not a JSON object"),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_refused_in_a_sentence(model: Path, name: str) -> None:
    change, words = CASES[name]
    change(model)
    with pytest.raises(ModelError, match=words) as refused:
        capture.load(model)
    assert "cannot be loaded" in str(refused.value)
    assert "\n" not in str(refused.value)
    assert len(str(refused.value)) < 800
    assert not (model.parent / "ran").exists()


def code(folder: Path, name: str) -> None:
    """A module that makes the folder `ran` when it is imported."""
    (folder / name).parent.mkdir(exist_ok=True)
    (folder / name).write_text(f"import pathlib\npathlib.Path({str(folder.parent / 'ran')!r}).mkdir()\nclass X: ...\n")


AUTO = {
    "config.json": {"AutoConfig": "x.X", "AutoModel": "x.X", "AutoModelForCausalLM": "x.X"},
    "tokenizer_config.json": {"AutoTokenizer": ["x.X", "x.X"]},
    "processor_config.json": {"AutoProcessor": "x.X"},
    "preprocessor_config.json": {"AutoImageProcessor": "x.X", "AutoFeatureExtractor": "x.X"},
}


@pytest.mark.parametrize("unknown", [False, True])
@pytest.mark.parametrize("file", [*AUTO, "custom_generate"])
def test_no_code_that_a_folder_brings_is_run(model: Path, file: str, unknown: bool) -> None:
    """By `auto_map` of any file, or beside `generate`; where transformers knows the class, and where it does not."""
    code(model, "x.py")
    if file in AUTO:
        other = {"model_type": "x"} if file == "config.json" else {"tokenizer_class": "X", "processor_class": "X"}
        settings(model, file, auto_map=AUTO[file], **(other if unknown else {}))
    else:
        code(model, "custom_generate/generate.py")
    with contextlib.suppress(ModelError):
        capture.read(capture.load(model), "a b")
    assert not (model.parent / "ran").exists()


def test_a_tokenizer_that_names_a_file_elsewhere(model: Path) -> None:
    (model.parent / "secret.txt").write_text("a")
    settings(model, "tokenizer_config.json", vocab_file="../secret.txt")
    with pytest.raises(ModelError, match="names a file outside the model folder as vocab_file"):
        capture.load(model)


def test_a_tokenizer_of_another_model(model: Path) -> None:
    data = json.loads((model / "tokenizer.json").read_text())
    data["added_tokens"] = [
        *data.get("added_tokens", []),
        {"id": 5000, "content": "zzz", "special": False, "single_word": False, "lstrip": False, "rstrip": False,
         "normalized": False},
    ]  # fmt: skip
    for number in range(200):
        data["model"]["vocab"][f"token-{number}"] = 1000 + number
    (model / "tokenizer.json").write_text(json.dumps(data))
    loaded = capture.load(model)
    with pytest.raises(ModelError, match="belong to different models"):
        capture.read(loaded, "zzz")


def test_what_stays_allowed(model: Path) -> None:
    """A pickle beside the safetensors, which nobody reads; shards; left-over paths; links inside the folder."""
    pickled(model, "pytorch_model.bin")
    settings(model, "tokenizer_config.json", special_tokens_map_file="/root/.cache/nobody/special_tokens_map.json")
    (model / "copy.json").symlink_to("config.json")
    shutil.copy(model / "model.safetensors", model / "model-00001-of-00001.safetensors")
    index(model, "model-00001-of-00001.safetensors")
    assert capture.load(model).reads == "text"
    assert not (model.parent / "ran").exists()


def test_a_snapshot_of_the_cache_links_into_its_blobs(model: Path) -> None:
    snapshot = model.parent / "models--a--b" / "snapshots" / "1"
    blobs = snapshot.parent.parent / "blobs"
    snapshot.parent.mkdir(parents=True)
    shutil.move(model, blobs)
    snapshot.mkdir()
    for file in blobs.iterdir():
        (snapshot / file.name).symlink_to(f"../../blobs/{file.name}")
    assert capture.load(snapshot).reads == "text"
