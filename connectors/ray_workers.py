"""What runs on the nodes of a Ray cluster: copies of the student, and what sends requests to models.

Nothing here speaks to the database, and what goes wrong comes back as a value, so that whoever asked raises it.
"""

import gc
import platform
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import numpy as np
import ray
from numpy.typing import NDArray

from loop.config import EndpointConfig, StudentConfig, TaskConfig
from loop.errors import BadConfig, PreceptorError, StudentError
from loop.ports import Request, Student

if TYPE_CHECKING:
    import httpx2

    from connectors.openai_teacher import OpenAITeacher

Files = Mapping[str, NDArray[np.uint8]]
HELD = 2
"""Students that a worker holds: checks by an encoder ask the trained and the untrained one in turn."""
OF_THE_WIRE = frozenset({"content-encoding", "content-length", "transfer-encoding"})
"""Headers that speak of a body as it was sent, not as it was read."""


@dataclass(frozen=True)
class Model:
    """A student that workers load: its settings, and a reference to the files of its checkpoint, where it has one.

    Models of one name are the same.
    """

    name: str
    student: StudentConfig
    task: TaskConfig
    files: Any = None


@dataclass(frozen=True)
class Failed:
    """What went wrong."""

    error: PreceptorError


class Worker:
    """Copies of a few students in a process of its own; a further one takes the place of the oldest."""

    def __init__(self, threads: int) -> None:
        self._threads = threads
        self._held: dict[str, tuple[Student, TemporaryDirectory[str]]] = {}
        """By the name of their model, with the folder of their checkpoint."""

    def ready(self) -> None:
        """Load what takes seconds, and compute with so many threads from now on."""
        import torch  # noqa: PLC0415 - takes seconds to load

        torch.set_num_threads(self._threads)

    def do(self, model: Model, work: Callable[[Student], object]) -> object:
        """What comes of the work, or `Failed`."""
        try:
            return work(self._loaded(model))
        except PreceptorError as error:
            return Failed(error)

    def forget(self, *, but: int = 0) -> None:
        """Give back the memory of all students but the newest ones."""
        import torch  # noqa: PLC0415 - as above

        for name in [*self._held][: len(self._held) - but]:
            del self._held[name]
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()

    def _loaded(self, model: Model) -> Student:
        if model.name not in self._held:
            self.forget(but=HELD - 1)
            folder = TemporaryDirectory(prefix="preceptor-student-")
            path = None if model.files is None else _unpacked(ray.get(model.files), Path(folder.name))
            from connectors.wiring import makes_students  # noqa: PLC0415 - seconds, which who asks models does without

            try:
                self._held[model.name] = makes_students(model.student, model.task).student(path), folder
            except StudentError as error:
                raise StudentError(f"node {here()}: {error}") from error
        return self._held[model.name][0]


def _unpacked(files: Files, folder: Path) -> Path:
    """The folder with these files in it."""
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        content.tofile(folder / name)
    return folder


class Asker:
    """Sends requests to models from its node, with the keys that the environment of the node holds."""

    def __init__(self) -> None:
        self._teachers: dict[str, OpenAITeacher] = {}

    async def ready(self, config: EndpointConfig) -> Failed | None:
        """Find the key of an endpoint and open a client for it."""
        from connectors.openai_teacher import OpenAITeacher  # noqa: PLC0415 - seconds, which students do without

        try:
            teacher = OpenAITeacher(config)
        except BadConfig as error:
            return Failed(BadConfig(f"node {here()}: {error}; its variables are those under which `ray start` ran"))
        self._teachers[repr(config)] = await teacher.__aenter__()
        return None

    async def knock(self) -> None:
        """Answer, so that who asks knows that the node is there."""

    async def answer(
        self, config: EndpointConfig, request: Request, more: Mapping[str, object]
    ) -> "httpx2.Response | Failed":
        """What the endpoint answers; without the request, whose headers hold the key."""
        import httpx2  # noqa: PLC0415 - as above

        try:
            found = await self._teachers[repr(config)].answer(request, more)
        except PreceptorError as error:
            return Failed(error)
        headers = [(name, value) for name, value in found.headers.multi_items() if name not in OF_THE_WIRE]
        return httpx2.Response(found.status_code, headers=headers, content=found.content)


def here() -> str:
    """The address of the node."""
    address: str = ray.util.get_node_ip_address()  # type: ignore[no-untyped-call]
    return address


def packed(folder: Path) -> Files:
    """The files of a folder by their names."""
    files = sorted(each for each in folder.rglob("*") if each.is_file())
    return {str(each.relative_to(folder)): np.fromfile(each, dtype=np.uint8) for each in files}


def versions() -> dict[str, str]:
    """What must be alike on all nodes for decisions to be so."""
    packages = ("preceptor", "ray", "torch", "transformers", "numpy")
    return {"python": platform.python_version(), **{name: version(name) for name in packages}}
