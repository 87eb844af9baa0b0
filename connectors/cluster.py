"""Ray behind the cluster's port: copies of the student on many nodes, and requests to models that go out from there.

The process of the campaign alone speaks to the database and reserves money. A worker whose node ends is replaced as
soon as there is room, and what it was doing is done by another one; what else is under way is not touched.
"""

import itertools
import os
import queue
import secrets
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from operator import methodcaller
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, cast

from connectors.openai_teacher import Through, address_of, is_loopback
from loop.config import ClusterConfig, EndpointConfig, StudentConfig, TaskConfig
from loop.errors import ClusterDown, TeacherBusy, TeacherDown, extra
from loop.ports import Example, Piece, Progress, Request, Result, Student, Trained, Trainer

if TYPE_CHECKING:
    import httpx2

    from connectors.ray_workers import Model

ATTEMPTS = 5
"""Workers that may end over one piece before the piece is taken to be the reason."""
PATIENCE = 120.0
"""Seconds without any worker, until that is an error."""
REACH_SECONDS = 5.0
METHODS = frozenset(name for name in vars(Student) if not name.startswith("_"))
"""What a student can be asked."""


@contextmanager
def opened(
    settings: ClusterConfig, student: StudentConfig, task: TaskConfig, say: Callable[[str], None]
) -> Iterator["RayCluster"]:
    """The cluster of the config while the block lasts; one that was started for it ends with it.

    Raises:
        MissingExtra: Ray is not installed.
        ClusterDown: the cluster cannot be reached, or has no room for the workers.
    """
    with connected(settings) as ray:
        cluster = RayCluster(ray, settings, student, task, say)
        try:
            yield cluster
        finally:
            cluster.close()


@contextmanager
def connected(settings: ClusterConfig) -> Iterator[Any]:
    """The package, connected to the cluster.

    Raises:
        MissingExtra: Ray is not installed.
        ClusterDown: the cluster cannot be reached.
    """
    ray = package(settings.address)
    with TemporaryDirectory(
        prefix="pr-", dir="/tmp", ignore_cleanup_errors=True
    ) as scratch:  # a socket's path is short
        alone = {"include_dashboard": False, "_temp_dir": scratch, "_system_config": {"worker_niceness": 0}}
        own = alone if settings.address == "local" else {}  # workers are then as patient as the run itself
        try:
            ray.init(settings.address, log_to_driver=False, logging_level="ERROR", configure_logging=False, **own)
        except (ConnectionError, RuntimeError, ValueError, ray.exceptions.RayError, SystemExit) as error:
            raise ClusterDown(
                f"cluster.address: Ray at {settings.address}: {_gist(error)}; see that it is a head of Ray "
                f"{ray.__version__}, that this machine is a node of it (`ray status`), and that RAY_AUTH_TOKEN is alike"
            ) from error
        ray._private.worker._worker_logs_enabled = False  # pages of logs where a node ends, of which we tell in a line
        try:
            yield ray
        finally:
            ray.shutdown()


def package(address: str) -> Any:
    """Ray, told before it is loaded to report to nobody, and to keep to loopback where the address does.

    Raises:
        MissingExtra: it is not installed.
        ClusterDown: nothing listens at the address.
    """
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    if address == "local":  # who else is on this machine has no token
        os.environ.setdefault("RAY_AUTH_MODE", "token")
        os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))
    if address == "local" or is_loopback(f"tcp://{address}"):
        os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"  # by which Ray takes 127.0.0.1 for the node's address
    with extra("ray", 'cluster.kind = "ray"'):
        import ray  # noqa: PLC0415 - an extra
    if address != "local":
        host, _, port = address.rpartition(":")
        try:
            socket.create_connection((host.strip("[]"), int(port)), timeout=REACH_SECONDS).close()
        except (OSError, OverflowError) as error:
            raise ClusterDown(
                f"cluster.address: nothing answers at {address} ({error}); start it with `ray start --head`, or set "
                'cluster.kind = "local"'
            ) from error
    return ray


def described(settings: ClusterConfig) -> str:
    """The cluster, its nodes and what they have in common.

    Raises:
        MissingExtra: Ray is not installed.
        ClusterDown: it cannot be reached, has no room for the workers, or a node has other versions than this process.
    """
    with connected(settings) as ray:
        from connectors.ray_workers import versions  # noqa: PLC0415 - an extra, which is told first to whom it reports

        nodes = _alive(ray.nodes())
        width, own = workers_of(settings, nodes), versions()
        there = ray.util.scheduling_strategies.NodeAffinitySchedulingStrategy
        asking = [
            ray.remote(versions)
            .options(num_cpus=0, max_retries=0, scheduling_strategy=there(each["NodeID"], soft=False))
            .remote()
            for each in nodes
        ]
        for node, asked in zip(nodes, asking, strict=True):
            address = node["NodeManagerAddress"]
            try:
                found = ray.get(asked, timeout=PATIENCE)
            except ray.exceptions.RayError as error:
                raise ClusterDown(f"node {address}: {_gist(error)}; install there what is installed here") from error
            other = [f"{name} {found[name]}, here {own[name]}" for name in own if found[name] != own[name]]
            if other:
                raise ClusterDown(f"node {address} has {'; '.join(other)}; install the same there")
        totals = ray.cluster_resources()
    devices = f"{totals.get('CPU', 0):.0f} processors and {totals.get('GPU', 0):.0f} GPUs"
    return (
        f"Ray {own['ray']} at {settings.address}: {len(nodes)} nodes with {devices}, {width} workers of "
        f"{settings.threads} threads; all have Python {own['python']} and packages as here"
    )


class RayCluster:
    """Workers on the nodes of a cluster (`loop.ports.Cluster`)."""

    def __init__(
        self, ray: Any, settings: ClusterConfig, student: StudentConfig, task: TaskConfig, say: Callable[[str], None]
    ) -> None:
        """Find out how many workers there are; they are started when the first one is needed.

        Raises:
            ClusterDown: the cluster has no room for them.
        """
        self._ray, self._settings, self._student, self._task, self._say = ray, settings, student, task, say
        self._lost = (ray.exceptions.RayActorError, ray.exceptions.ObjectLostError, ray.exceptions.OutOfMemoryError)
        self.width = workers_of(settings, ray.nodes())
        self._newest: Model | None = None
        self._idle: queue.SimpleQueue[tuple[Any, BaseException | None]] = queue.SimpleQueue()
        """Workers that have nothing to do, and those that could not be started."""
        self._workers: list[Any] = []
        self._begun: set[Any] = set()
        self._stillborn, self._closed = 0, False
        self._lock = threading.RLock()
        self._askers: dict[str, Any] = {}

    def close(self) -> None:
        """End all workers; who waits for one gets an error."""
        self._closed = True
        for actor in [*self._workers, *self._askers.values()]:
            self._ray.kill(actor)

    def trainer(self, trainer: Trainer) -> Trainer:
        """What trains here and has its students on the workers."""
        return ReplicatedTrainer(trainer, self)

    def student(self, folder: Path | None) -> Student:
        """The student of a checkpoint, or the untrained one, on the workers; one of them has loaded it.

        Raises:
            StudentError: a worker cannot load it.
        """
        model = self._model(folder)
        self.do(model, _nothing)
        return cast("Student", Replicated(self, model))

    def _model(self, folder: Path | None) -> "Model":
        """What workers load; the newest checkpoint stays in Ray's object store."""
        from connectors.ray_workers import Model, packed  # noqa: PLC0415 - an extra

        if folder is None:
            return Model("untrained", self._student, self._task)
        written = [(each.name, each.stat().st_size, each.stat().st_mtime_ns) for each in sorted(folder.rglob("*"))]
        name = f"{folder} {written}"
        if self._newest is None or self._newest.name != name:
            self._newest = Model(name, self._student, self._task, self._ray.put(packed(folder)))
        return self._newest

    def map(
        self, student: Student, work: Callable[[Student, Piece], Result], pieces: Sequence[Piece]
    ) -> Iterator[tuple[int, Result]]:
        """As `loop.ports.Cluster.map`."""
        model, waiting = cast("Replicated", student).model, iter(enumerate(pieces))
        threads, running = ThreadPoolExecutor(self.width), dict[Future[Any], int]()

        def hand_out(count: int) -> None:
            for number, piece in itertools.islice(waiting, count):
                running[threads.submit(self.do, model, partial(_piece_done, work, piece))] = number

        try:
            hand_out(self.width)
            while running:
                done, _ = wait(running, return_when=FIRST_COMPLETED)
                for future in done:
                    number, result = running.pop(future), future.result()
                    hand_out(1)
                    yield number, result
        finally:
            threads.shutdown(wait=False, cancel_futures=True)

    def side_by_side(self, work: Callable[[Piece], Result], pieces: Sequence[Piece]) -> list[Result]:
        """As `loop.ports.Cluster.side_by_side`."""
        threads = ThreadPoolExecutor(self.width)
        try:
            return list(threads.map(work, pieces))
        finally:
            threads.shutdown(wait=False, cancel_futures=True)

    def do(self, model: "Model", work: Callable[[Student], Any]) -> Any:
        """What comes of some work on a student; where its worker ends, another one does it.

        Raises:
            PreceptorError: what went wrong on the worker.
            ClusterDown: no worker is left, or one after the other ends over this work.
        """
        from connectors.ray_workers import Failed  # noqa: PLC0415 - an extra

        for _ in range(ATTEMPTS):
            worker = self._take()
            try:
                found = self._ray.get(worker.do.remote(model, work))
            except self._lost as error:
                self._replace(worker, error)
                continue
            except self._ray.exceptions.RayTaskError:
                self._idle.put((worker, None))
                raise
            self._idle.put((worker, None))
            if isinstance(found, Failed):
                raise found.error
            return found
        raise ClusterDown(
            f"{ATTEMPTS} workers ended over the same piece of work, perhaps for want of memory; lower query.chunk_size "
            "or student.generation_batch, or take machines with more memory; what came before is stored"
        )

    def forget(self) -> None:
        """Have all workers give back the memory of their students."""
        waiting = [worker.forget.remote() for worker in self._begun]
        if waiting:
            self._ray.wait(waiting, num_returns=len(waiting), timeout=PATIENCE)

    def through(self, config: EndpointConfig) -> Through:
        """What sends requests for an endpoint from the nodes in turn; for one on loopback, from those on this machine.

        Raises:
            BadConfig: the key is missing on a node; the text names it.
        """
        here = self._ray.util.get_node_ip_address()
        near = is_loopback(address_of(config))
        nodes = [each for each in _alive(self._ray.nodes()) if not near or each["NodeManagerAddress"] == here]
        return Askers(self._ray, config, {each["NodeID"]: self._asker(each["NodeID"]) for each in nodes})

    def _asker(self, node: str) -> Any:
        if node not in self._askers:
            from connectors.ray_workers import Asker  # noqa: PLC0415 - an extra

            there = self._ray.util.scheduling_strategies.NodeAffinitySchedulingStrategy(node, soft=False)
            self._askers[node] = self._ray.remote(Asker).options(num_cpus=0, scheduling_strategy=there).remote()
        return self._askers[node]

    def _take(self) -> Any:
        """A worker that has nothing to do, as soon as there is one."""
        with self._lock:
            for _ in range(self.width - len(self._workers)):
                self._start()
        since = time.monotonic()
        while not self._closed:
            try:
                worker, error = self._idle.get(timeout=1.0)
            except queue.Empty:
                since = time.monotonic() if self._begun else since
                if time.monotonic() - since > PATIENCE:
                    raise ClusterDown(
                        f"no worker has begun within {PATIENCE:.0f} s: the cluster has no room for one of "
                        f"{self._settings.threads} processors; see `ray status`. What came before is stored"
                    ) from None
            else:
                if error is None:
                    return worker
                self._start_again(worker, error)
        raise ClusterDown("the cluster is closed")

    def _start(self) -> None:
        """Have a worker started as soon as there is room for it; it is idle once it says so."""
        from connectors.ray_workers import Worker  # noqa: PLC0415 - an extra

        gpus = int(_has_gpus(self._ray.nodes()))
        remote = self._ray.remote(Worker).options(num_cpus=self._settings.threads, num_gpus=gpus)
        worker = remote.remote(self._settings.threads)
        self._workers.append(worker)
        worker.ready.remote().future().add_done_callback(partial(self._note_ready, worker))

    def _note_ready(self, worker: Any, future: Future[None]) -> None:
        error = future.exception()
        if error is None:
            self._begun.add(worker)
        self._idle.put((worker, error))

    def _start_again(self, worker: Any, error: BaseException) -> None:
        """Another worker for one that did not begin; its node may have ended."""
        with self._lock:
            self._workers.remove(worker)
            self._stillborn += 1
            if self._stillborn > ATTEMPTS:
                raise ClusterDown(
                    f"a worker cannot be started: {_gist(error)}; `preceptor doctor` says more"
                ) from error
            self._start()

    def _replace(self, worker: Any, error: Exception) -> None:
        """Another worker for one that ended."""
        with self._lock:
            self._workers.remove(worker)
            self._begun.remove(worker)
            if self._closed:
                raise ClusterDown("the cluster is closed") from error
            self._start()
        self._say("  a worker of the cluster ended; what it was doing goes to another one")


class Replicated:
    """A student on the workers of a cluster (`loop.ports.Student`): each call goes to one that has nothing to do."""

    def __init__(self, cluster: RayCluster, model: "Model") -> None:
        self._cluster, self.model = cluster, model

    def __getattr__(self, name: str) -> Callable[..., Any]:
        """A method of the student."""
        if name not in METHODS:
            raise AttributeError(name)
        return lambda *given, **settings: self._cluster.do(self.model, methodcaller(name, *given, **settings))


class ReplicatedTrainer:
    """Trains here; the students are on the workers of a cluster (`loop.ports.Trainer`)."""

    def __init__(self, trainer: Trainer, cluster: RayCluster) -> None:
        self._trainer, self._cluster = trainer, cluster

    def student(self, folder: Path | None) -> Student:
        """As `RayCluster.student`."""
        return self._cluster.student(folder)

    def train(
        self, examples: Sequence[Example], *, seed: int, folder: Path, progress: Progress, start: Path | None = None
    ) -> Trained:
        """Train in this process, which then has the device for itself."""
        self._cluster.forget()
        return self._trainer.train(examples, seed=seed, folder=folder, progress=progress, start=start)


class Askers:
    """Sends the requests for one endpoint from the nodes in turn; a node that ended is left out."""

    def __init__(self, ray: Any, config: EndpointConfig, by_node: Mapping[str, Any]) -> None:
        """See that each node has the key.

        Raises:
            BadConfig: one has not.
        """
        self._config, self._askers, self._turn = config, list(by_node.values()), itertools.count()
        self._lost = ray.exceptions.RayActorError
        for failed in ray.get([each.ready.remote(config) for each in self._askers]):
            if failed is not None:
                raise failed.error

    async def __call__(self, request: Request, more: Mapping[str, object]) -> "httpx2.Response":
        """The endpoint's answer; raises like `OpenAITeacher.answer`."""
        from connectors.ray_workers import Failed  # noqa: PLC0415 - an extra

        asker = await self._next()
        try:
            # What the placeholders of a request stand for stays here.
            found = await asker.answer.remote(self._config, replace(request, hidden={}), more)
        except self._lost as error:
            raise TeacherBusy("the node from which it was sent has ended") from error
        if isinstance(found, Failed):
            raise found.error
        answer: httpx2.Response = found
        return answer

    async def _next(self) -> Any:
        """The next one that is there; nothing is charged for those that are not."""
        while self._askers:
            asker = self._askers[next(self._turn) % len(self._askers)]
            try:
                await asker.knock.remote()
            except self._lost:
                self._askers = [each for each in self._askers if each is not asker]
            else:
                return asker
        raise TeacherDown(
            "all nodes that sent requests ended; what came before is stored, and the same command asks for the rest"
        )


def workers_of(settings: ClusterConfig, nodes: Sequence[Mapping[str, Any]]) -> int:
    """How many workers the nodes take, or as many as the config wants.

    Raises:
        ClusterDown: there is no room for so many.
    """
    gpus, room = _has_gpus(nodes), 0
    for each in _alive(nodes):
        processors = int(each["Resources"].get("CPU", 0) // settings.threads)
        room += min(processors, int(each["Resources"].get("GPU", 0))) if gpus else processors
    if room < max(1, settings.workers):
        raise ClusterDown(
            f"cluster.workers: {settings.workers or 1} of {settings.threads} threads are wanted, but the "
            f"{len(_alive(nodes))} nodes have room for {room}{' (one a GPU)' if gpus else ''}; lower cluster.workers "
            "or cluster.threads, or add nodes"
        )
    return settings.workers or room


def _alive(nodes: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    return [each for each in nodes if each["Alive"]]


def _has_gpus(nodes: Sequence[Mapping[str, Any]]) -> bool:
    return any(each["Resources"].get("GPU", 0) for each in _alive(nodes))


def _nothing(_: Student) -> None:
    """Nothing, by which a student is loaded."""


def _piece_done(work: Callable[[Student, Piece], Result], piece: Piece, student: Student) -> Result:
    return work(student, piece)


def _gist(error: BaseException) -> str:
    """What an error says: the last line of a traceback, or the first of an explanation."""
    lines = (str(error).strip() or type(error).__name__).splitlines()
    return lines[-1] if "Error: " in lines[-1] else lines[0]
