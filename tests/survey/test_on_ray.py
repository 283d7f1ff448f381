"""On Ray, on one machine and on two nodes, the files are those of this process bit for bit; a dead actor is replaced."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from clearhead.errors import ModelError, OptionError
from clearhead.survey import Settings, open_corpus, survey
from survey.made import contents, write_lines

pytestmark = [
    pytest.mark.stress,
    pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::FutureWarning", "ignore::DeprecationWarning"),
]
ray: Any = pytest.importorskip("ray", reason="Ray is not installed: pip install 'clearhead[survey]'")

SETTINGS = Settings(
    asks=("scores", "entropy", "received", "sinks", "ablation"), part_texts=7, sample=4, keep_texts=True
)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("survey")
    write_lines(place, copies=3)
    run(place, "whole", workers=1, ray=False)
    return place


def run(place: Path, name: str, **options: Any) -> dict[str, bytes]:
    survey("induction", open_corpus(place / "texts.txt"), place / name, SETTINGS, **options)
    return contents(place / name)


@pytest.mark.parametrize("workers", [1, 2])
def test_actors_write_the_same_bits(workers: int, place: Path) -> None:
    assert run(place, f"ray-{workers}", workers=workers, ray=True) == contents(place / "whole")
    assert not ray.is_initialized()


@pytest.fixture
def cluster() -> Iterator[Any]:
    """Two nodes on this machine, of one CPU each."""
    from ray.cluster_utils import Cluster

    made = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    made.add_node(num_cpus=1)
    made.wait_for_nodes()
    yield made
    ray.shutdown()
    made.shutdown()


def test_two_nodes_write_the_same_bits(place: Path, cluster: Any) -> None:
    assert run(place, "nodes", workers=2, address=cluster.address) == contents(place / "whole")


def actors_of(driver: int) -> list[int]:
    """The processes of the actors of clusters that a process started: children of its raylets."""
    actors = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            is_actor = "PartActor" in (entry / "cmdline").read_text()
            if is_actor and parent(parent(int(entry.name))) == driver:
                actors.append(int(entry.name))
        except OSError:  # it has ended meanwhile
            continue
    return actors


def parent(process: int) -> int:
    return int(Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[1])


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="processes are found in Linux' /proc")
def test_an_actor_that_is_killed_is_replaced(place: Path, cluster: Any) -> None:
    """The first part that is written kills an actor of the pool: its part is computed again by another."""
    from clearhead.survey.folder import SurveyFolder

    add, killed = SurveyFolder.add, []

    def kill_one(self: SurveyFolder, files: dict[str, bytes]) -> None:
        add(self, files)
        if not killed:
            killed.append(actors_of(os.getpid())[0])
            os.kill(killed[0], signal.SIGKILL)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(SurveyFolder, "add", kill_one)
        assert run(place, "restarted", workers=2, address=cluster.address) == contents(place / "whole")
    assert killed


def test_an_error_of_an_actor_is_its_sentence(place: Path, tmp_path: Path) -> None:
    write_lines(tmp_path, copies=3)
    corpus = open_corpus(tmp_path / "texts.txt")
    (tmp_path / "texts.txt").write_text("one line\n")
    with pytest.raises(ModelError, match="has changed while it was read"):
        survey("induction", corpus, tmp_path / "out", SETTINGS, workers=1, ray=True)


def test_a_cluster_that_is_not_there(place: Path, tmp_path: Path) -> None:
    with pytest.raises(OptionError, match=r"Ray cannot be reached or started .* or survey in this process: --no-ray"):
        survey("induction", open_corpus(place / "texts.txt"), tmp_path / "out", SETTINGS, address="127.0.0.1:9")
