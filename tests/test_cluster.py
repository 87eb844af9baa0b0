"""Work on a real cluster of Ray: three nodes on loopback, of which two are killed."""

import asyncio
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, cast

import pytest
import torch
from rich.console import Console

from connectors import campaign, cluster, sources
from connectors.openai_teacher import OpenAITeacher
from connectors.progress import RichProgress
from connectors.recorded_teacher import Fault, RecordedTeacher, read_recordings, running
from connectors.wiring import Project
from loop.config import ClusterConfig, Config, StudentConfig, TaskConfig
from loop.errors import BadConfig, ClusterDown, MissingExtra, StudentError
from loop.ports import Student
from loop.records import Split
from tests import databases
from tests.test_ask import Book, a_config, asking, recorded, worst_of
from tests.test_ask import an_item as a_sum
from tests.tiny import tiny_model, tiny_project

pytestmark = pytest.mark.timeout(900)  # workers load torch, each for itself
SAME = {
    "scores": "select round_id, item_key, chunk, score, cast(parts as varchar) from score order by 1, 2",
    "queries": "select round_id, item_key, position, arm, probability, audit from query order by 1, 3",
    "rationales": "select item_key, round_id, author, cast(steps as varchar), answer from rationale order by 1, id",
    "risks": "select r.item_key, r.author, k.value, k.check_set, cast(k.evidence as varchar) from risk k"
    " join rationale r on r.id = k.rationale_id order by 1, 2",
    "flags": "select r.item_key, f.check_name, f.step, f.evidence, f.weight from flag f"
    " join rationale r on r.id = f.rationale_id order by 1, 2, 3, 4",
    "decisions": "select item_key, kind, reason, round_id from decision order by id",
    "predictions": "select checkpoint_id, item_key, answer, correct from prediction order by 1, 2",
    "replies": "select item_key, prompt_hash, text, input_tokens, output_tokens from reply order by 1",
    "charges": "select purpose, reserved, settled, state, assumed from charge where currency = 'USD' order by 1",
    "money": "select spent, reserved, \"limit\" from balance where currency = 'USD' and scope = ''",
}
"""What a campaign comes to; ids of rationales go by when their replies came."""
PROMPT_DEATH = {"health_check_initial_delay_ms": 0, "health_check_period_ms": 1000, "health_check_failure_threshold": 4}
"""A node that is silent for so long has ended."""


KEY = "the key of the nodes"


class Nodes:
    """A head, and two further nodes with a processor each, so that workers are on these."""

    def __init__(self) -> None:
        from ray.cluster_utils import Cluster  # noqa: PLC0415 - after the environment that it reads

        self._own = {"num_cpus": 1, "object_store_memory": 80 << 20, "node_ip_address": "127.0.0.1"}
        quiet = {"include_dashboard": False, "_system_config": {**PROMPT_DEATH, "worker_niceness": 0}}
        self.ray = Cluster(initialize_head=True, head_node_args={**self._own, **quiet, "num_cpus": 0})
        self.further = [self.ray.add_node(wait=False, **self._own) for _ in range(2)]
        self.ray.wait_for_nodes()

    @property
    def config(self) -> ClusterConfig:
        return ClusterConfig(kind="ray", address=self.ray.address)

    def kill(self, node: Any) -> None:
        self.ray.remove_node(node, allow_graceful=False)


@pytest.fixture(scope="module")
def nodes() -> Iterator[Nodes]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # as many as a worker has
    with pytest.MonkeyPatch.context() as patch, TemporaryDirectory(prefix="ray-", dir="/tmp") as folder:
        patch.setenv("RAY_TMPDIR", folder)  # the path of a socket is short
        patch.setenv("NODES_KEY", KEY)
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        patch.setenv("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")  # so that it keeps to loopback
        found = Nodes()
        yield found
        found.ray.shutdown()
    torch.set_num_threads(threads)


def a_project(folder: Path, more: str = "") -> Project:
    """The tiny project, whose second round sieves 18 items and scores 12 in six chunks."""
    config = tiny_project(folder, sums=24)
    config.write_text(config.read_text().replace("chunk_size = 4", "chunk_size = 2\nsieve = 2") + more)
    project = Project(config, RichProgress(Console(quiet=True)))
    for split in (Split.HOLDOUT, Split.POOL):
        file = folder / f"{split.value}.jsonl"
        task, pool = project.config.task, project.config.pool
        sources.ingest([file], project.store, split=split, pool=pool, task=task, progress=project.progress)
    return project


def facts(project: Project) -> dict[str, list[tuple[object, ...]]]:
    return {name: databases.rows(project.home / "preceptor.db", query) for name, query in SAME.items()}


def on(config: ClusterConfig) -> str:
    return f'[cluster]\nkind = "ray"\naddress = "{config.address}"\nworkers = {config.workers}\n'


def noting(work: Callable[..., Any], folder: str, victim: str) -> Callable[..., Any]:
    """The work, that notes for each piece on which node it began; on the victim it then takes too long.

    Another one waits until the victim has begun something.
    """

    def noted(student: Student, piece: Any) -> Any:
        import ray  # noqa: PLC0415 - an extra, on the node

        if not isinstance(piece[0], int):  # a chunk of the race, which has no number
            return work(student, piece)
        node = ray.get_runtime_context().get_node_id()
        (Path(folder) / f"{piece[0]}-{node}-{uuid.uuid4().hex}").touch()
        while node == victim or (victim and not list(Path(folder).glob(f"*-{victim}-*"))):
            time.sleep(0.05)
        return work(student, piece)

    return noted


def watch(monkeypatch: pytest.MonkeyPatch, folder: Path, victim: str = "") -> None:
    """Have the chunks noted that workers begin."""
    folder.mkdir()
    plain = cluster.RayCluster.map

    def mapped(self: Any, student: Student, work: Any, pieces: Sequence[Any]) -> Any:
        return plain(self, student, noting(work, str(folder), victim), pieces)

    monkeypatch.setattr(cluster.RayCluster, "map", mapped)


def begun(folder: Path) -> Counter[int]:
    """How often each chunk was begun."""
    return Counter(int(each.name.partition("-")[0]) for each in folder.iterdir())


def test_a_campaign_with_a_node_killed_in_mid_scoring_decides_as_one_in_process(
    nodes: Nodes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    victim, began = nodes.further.pop(), tmp_path / "began"
    watch(monkeypatch, began, victim.node_id)

    def kill() -> None:
        while not list(began.glob(f"*-{victim.node_id}-*")):
            time.sleep(0.05)
        nodes.kill(victim)

    spread, alone = a_project(tmp_path / "spread", on(nodes.config)), a_project(tmp_path / "alone")
    killer = threading.Thread(target=kill)
    killer.start()
    campaign.run(spread, rounds_wanted=2, wait=False)
    killer.join()
    campaign.run(alone, rounds_wanted=2, wait=False)
    [lost] = [int(each.name.partition("-")[0]) for each in began.glob(f"*-{victim.node_id}-*")]
    assert begun(began) == Counter({number: 1 + (number == lost) for number in range(6)})
    assert facts(spread) == facts(alone)
    assert len(facts(spread)["scores"]) == 12


def test_doctor_says_what_the_nodes_are(nodes: Nodes) -> None:
    said = cluster.described(nodes.config)
    wanted = (
        r"Ray [\d.]+ at 127\.0\.0\.1:\d+: 2 nodes with 1 processors and 0 GPUs, 1 workers of 1 threads; all have .*"
    )
    assert re.fullmatch(wanted, said)


@pytest.mark.slow
def test_a_run_that_was_killed_computes_only_what_is_missing(
    nodes: Nodes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    project, alone = a_project(tmp_path / "killed", on(nodes.config)), a_project(tmp_path / "alone")
    project.store.close()
    script = Path(__file__).with_name("killed_run.py")
    done = subprocess.run([sys.executable, script, project.path, "SELECT", "insert into score"], check=False)
    assert done.returncode == -signal.SIGKILL
    [(stored,)] = databases.rows(project.home / "preceptor.db", "select distinct chunk from score")
    watch(monkeypatch, tmp_path / "began")
    campaign.run(Project(project.path, project.progress), rounds_wanted=2, wait=False)
    campaign.run(alone, rounds_wanted=2, wait=False)
    assert begun(tmp_path / "began") == Counter({number: 1 for number in range(6) if number != stored})
    assert facts(project) == facts(alone)


@pytest.mark.slow
def test_ctrl_c_settles_what_nodes_have_sent(tmp_path: Path) -> None:
    """Ray is of the same process group here, so that it gets the signal of the terminal too."""
    project = a_project(tmp_path, '[cluster]\nkind = "ray"\nworkers = 1\n')
    project.store.close()
    teacher = RecordedTeacher(read_recordings(tmp_path / "recorded.jsonl"), [Fault(kind="slow", times=9, seconds=5.0)])
    with running(teacher) as address:
        text = project.path.read_text().replace('recorded = "recorded.jsonl"', f'base_url = "{address}"')
        project.path.write_text(text)
        command = [sys.executable, "-c", "from connectors.cli import main; main()", "run", "--config", project.path]
        with subprocess.Popen(command, start_new_session=True) as run:
            while teacher.requests < 2:
                time.sleep(0.1)
            os.killpg(run.pid, signal.SIGINT)
    assert run.returncode == 128 + signal.SIGINT
    charges = databases.rows(tmp_path / "preceptor.db", "select state, assumed from charge where currency = 'USD'")
    assert charges == [("SETTLED", False), ("SETTLED", False)]
    assert databases.rows(tmp_path / "preceptor.db", "select count(*) from reply") == [(2,)]


LISTENING = """
import ipaddress, json, psutil
from connectors.cluster import connected
from loop.config import ClusterConfig
with connected(ClusterConfig(kind="ray")) as ray:
    ray.get(ray.remote(lambda: 0).remote())
    processes = [psutil.Process(), *psutil.Process().children(recursive=True)]
    sockets = [each for some in processes for each in some.net_connections("inet") if each.status == "LISTEN"]
    found = [ipaddress.ip_address(each.laddr.ip) for each in sockets]
    print(json.dumps([str(getattr(each, "ipv4_mapped", None) or each) for each in found]))
"""


@pytest.mark.slow
def test_ray_on_this_machine_listens_on_loopback_alone() -> None:
    done = subprocess.run([sys.executable, "-c", LISTENING], check=True, capture_output=True, text=True)
    found = json.loads(done.stdout.splitlines()[-1])
    assert len(found) > 3
    assert set(found) == {"127.0.0.1"}


@pytest.fixture(scope="module")
def one(nodes: Nodes, tmp_path_factory: pytest.TempPathFactory) -> Iterator[cluster.RayCluster]:
    """A worker on the last node beside the head."""
    model = tiny_model(tmp_path_factory.mktemp("tiny") / "model")
    settings = nodes.config.model_copy(update={"workers": 1})
    student = StudentConfig(model=str(model), lora_rank=0, max_new_tokens=12)
    with cluster.opened(settings, student, TaskConfig(answer="number"), print) as found:
        yield found


def test_what_goes_wrong_on_a_worker_is_told_with_its_cure(one: cluster.RayCluster, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(StudentError, match=r"^node 127\.0\.0\.1: .*; take the student of another round, or copy"):
        one.student(tmp_path)


@pytest.mark.slow
def test_a_piece_over_which_every_worker_ends_is_given_up(one: cluster.RayCluster) -> None:
    def deadly(student: Student, piece: int) -> int:
        os._exit(1)

    with pytest.raises(ClusterDown, match="5 workers ended over the same piece of work"):
        list(one.map(one.student(None), deadly, [1]))


def test_no_more_is_under_way_than_there_are_workers(one: cluster.RayCluster, tmp_path: Path) -> None:
    def noted(student: Student, piece: int) -> int:
        (tmp_path / str(piece)).touch()
        return piece

    pieces = iter(one.map(one.student(None), noted, range(6)))
    for number in range(6):
        assert next(pieces) == (number, number)
        time.sleep(0.3)
        assert len(list(tmp_path.iterdir())) <= number + 2


def test_a_key_that_a_node_lacks_is_named_before_anything_is_sent(
    one: cluster.RayCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OURS_ALONE", "secret")
    config = a_config("http://192.0.2.7/v1", api_key_env="OURS_ALONE")
    with pytest.raises(BadConfig, match=r"^node 127\.0\.0\.1: the environment variable OURS_ALONE is empty.*ray start"):
        OpenAITeacher(config, one.through(config))


def test_requests_go_out_from_the_nodes_within_one_budget(one: cluster.RayCluster, nodes: Nodes) -> None:
    """The money is for a part of the items; a node ends while the first request, which it has sent, is under way."""
    items, victim = [a_sum(number) for number in range(40)], nodes.further.pop()
    teacher = recorded(items, [Fault(kind="slow", key=items[0].key, seconds=15.0)], api_key=KEY)

    def kill() -> None:
        while not teacher.requests:
            time.sleep(0.02)
        nodes.kill(victim)

    with running(teacher) as address:
        config = a_config(address, api_key_env="NODES_KEY", timeout=60.0)
        book = Book(limit=3 * worst_of(items[0], api_key_env="NODES_KEY"))
        through = cast("cluster.Askers", one.through(config))
        through._askers.sort(key=lambda asker: asker is not one._askers[victim.node_id])
        killer = threading.Thread(target=kill)
        killer.start()
        outcome = asyncio.run(asking(items, config, book, teacher=OpenAITeacher(config, through)))
        killer.join()
    assert outcome.budget_spent
    assert "assumed" in book.states()  # nobody knows whether the endpoint had read it
    assert book.spent <= book.limit
    assert book.reserved == 0
    assert len(book.replies) == outcome.replies > 3
    assert len(book.replies) + len(book.problems) == 40


def test_a_student_on_a_server_of_its_own_is_on_no_cluster() -> None:
    served = {"engine": "openai", "served": {"base_url": "http://127.0.0.1:1/v1", "model": "m"}}
    with pytest.raises(ValueError, match=r'set cluster\.kind = "local"'):
        Config.model_validate({"student": served, "cluster": {"kind": "ray"}})


def test_more_workers_than_fit_are_refused() -> None:
    nodes = [{"Alive": True, "Resources": {"CPU": 5.0}}, {"Alive": False, "Resources": {"CPU": 8.0}}]
    assert cluster.workers_of(ClusterConfig(threads=2), nodes) == 2
    assert cluster.workers_of(ClusterConfig(threads=1), [{"Alive": True, "Resources": {"CPU": 8.0, "GPU": 2.0}}]) == 2
    with pytest.raises(ClusterDown, match=r"3 of 2 threads are wanted, but the 1 nodes have room for 2; lower"):
        cluster.workers_of(ClusterConfig(threads=2, workers=3), nodes)


def test_an_address_where_nothing_listens_is_told_at_once() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{unused.getsockname()[1]}"
        start = time.monotonic()
        with pytest.raises(ClusterDown, match=f"nothing answers at {address}.*ray start --head"):
            cluster.package(address)
    assert time.monotonic() - start < 10


def test_without_ray_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(MissingExtra, match=r"preceptor\[ray\]"):
        cluster.package("local")
