"""`see --picture` and `see --sound`: words over patches and seconds, or one sentence, never a traceback."""

import json

import pytest

from capture.media import folders as models

from .test_see import clearhead

TEXT = "a red kite flew"


@pytest.fixture(scope="module")
def here(tmp_path_factory):
    """A folder with models that see and hear, a picture and sounds."""
    place = models.with_media(tmp_path_factory.mktemp("media"))
    models.sound(place / "fast.wav", rate=44_100)
    (place / "none.png").write_text("no picture")
    return place


@pytest.mark.slow
def test_words_over_a_picture(here, tmp_path):
    given = ["see", TEXT, "--picture", str(here / "kite.png"), "--model", str(here / "llava")]
    listed = json.loads(clearhead(*given, "--json").stdout)
    assert listed["pictures"] == [{"first": 0, "rows": 5, "cols": 5, "row_gap": 0}]
    assert listed["tokens"][-4:] == TEXT.split()
    assert "What the words look at in the picture" in clearhead(*given, "--layer", "1").output
    done = clearhead(*given, "--layer", "1", "--html", str(tmp_path / "a.html"), "--png", str(tmp_path / "a.png"))
    assert done.exit_code == 0
    page = (tmp_path / "a.html").read_text(encoding="utf-8")
    assert "data:image/jpeg;base64," in page
    assert "kite.png" in page  # of the program that repeats it
    assert (tmp_path / "a.png").stat().st_size > 5_000


@pytest.mark.slow
def test_words_over_seconds(here, tmp_path):
    given = ["see", "--sound", str(here / "kite.wav"), "--model", str(here / "whisper")]
    for words in ([TEXT], ["--target", TEXT]):
        listed = json.loads(clearhead(*given, *words, "--json").stdout)
        assert listed["sound"] == {"seconds": 0.02, "duration": 0.7}
        assert listed["decoder_tokens"] == ["<s>", *TEXT.split()]
    assert "What the words look at in the sound" in clearhead(*given, TEXT, "--layer", "3").output
    assert clearhead(*given, TEXT, "--html", str(tmp_path / "a.html")).exit_code == 0


@pytest.mark.slow
@pytest.mark.parametrize(
    ("model", "more", "said"),
    [
        ("llava", ["--picture", "kite.png"], "reads words about a picture. Give them too"),
        ("llava", ["--picture", "none.png", TEXT], "cannot be read as a picture"),
        ("llava", ["--picture", "gone.png", TEXT], "does not exist"),
        ("llava", ["--sound", "kite.wav", TEXT], "does not hear sound"),
        ("llava", [f"<image> {TEXT}"], "no picture was given"),
        ("llava", ["--picture", "kite.png", TEXT, "--target", "a"], "takes no --target"),
        ("whisper", [TEXT], "hears sound. Give it a WAV file with --sound"),
        ("whisper", ["--picture", "kite.png", TEXT], "hears sound. Give it a WAV file with --sound"),
        ("whisper", ["--sound", "kite.wav"], "reads the words that are said in"),
        ("whisper", ["--sound", "kite.wav", " "], "is empty"),
        ("whisper", ["--sound", "kite.wav", "--target", ""], "text is empty"),
        ("whisper", ["--sound", "kite.wav", "--target", "a " * 30], "the target is 31 tokens long"),
        ("whisper", ["--sound", "kite.wav", "--target", "a\udcff"], "holds half a character at place 1"),
        ("whisper", ["--sound", "kite.wav", TEXT, "--target", TEXT], "Give the words once"),
        ("whisper", ["--sound", "fast.wav", TEXT], "44100 samples a second and whisper hears 16000"),
        ("whisper", ["--sound", "none.png", TEXT], "cannot be read as a sound"),
    ],
)
def test_what_does_not_go_together_is_one_sentence(here, monkeypatch, model, more, said):
    monkeypatch.chdir(here)
    result = clearhead("see", "--model", f"./{model}", *more)
    assert (result.exit_code, type(result.exception)) == (2, SystemExit)
    assert said in " ".join(result.stderr.split())
    assert "Traceback" not in result.output
