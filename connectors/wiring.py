"""Puts the parts together: which class stands behind each port for a given config."""

import os
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import replace
from datetime import timedelta
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import platformdirs
from sqlalchemy.engine import make_url

from connectors.needs import review_worth
from connectors.present_answers import PresentAnswers
from connectors.progress import RichProgress
from loop.config import Config, EndpointConfig, StudentConfig, TaskConfig, load, of_run
from loop.errors import BadConfig, extra
from loop.ledger import to_micro
from loop.ports import Batches, InProcess, Teacher, Trainer
from loop.records import Claim, Rationale, Round
from loop.redaction import Hider
from loop.stages.parts import Parts
from loop.store import asking, claims, planted, rationales, reviews, rounds
from loop.store.database import Store
from review.board import Board
from review.desk import Desk, Queue
from review.fake_board import FakeBoard
from review.page import Page, holdout_page, review_page
from review.simulated import SimulatedReviewer, read_truth
from review.task import Details

if TYPE_CHECKING:
    from connectors.cluster import RayCluster
    from connectors.label_studio import Pace
    from connectors.openai_teacher import Through


def cache_folder() -> Path:
    """Where converted models and the Label Studio environment are kept, shared by all projects of a user."""
    return platformdirs.user_cache_path("preceptor")


def makes_students(student: StudentConfig, task: TaskConfig) -> Trainer:
    """What makes students by settings whose paths are whole.

    Raises:
        MissingExtra: torch or a package beside it is not installed.
    """
    with extra("student", "a student"):
        from transformers.utils.logging import disable_progress_bar  # noqa: PLC0415 - torch takes seconds to load

        from connectors.served_student import ServedStudent  # noqa: PLC0415 - as above
        from loop.student import trainer  # noqa: PLC0415 - as above

    disable_progress_bar()
    # peft reads a name that transformers renamed; the user can do nothing about it.
    warnings.filterwarnings("ignore", "`is_gradient_checkpointing` is deprecated", FutureWarning)
    return trainer.Students(student, task, cache_folder(), ServedStudent)


class Project:
    """A config file and everything that hangs on it, made when first needed."""

    def __init__(self, path: Path, progress: RichProgress, *, run: str | None = None) -> None:
        self.path = path.resolve()
        self.progress = progress
        config = load(path)
        self._boards: dict[int, Board] = {}
        self.config: Config = config if run is None else of_run(config, run)

    @property
    def home(self) -> Path:
        """The folder of the config file; relative paths in it start here."""
        return self.path.parent

    @property
    def folder(self) -> Path:
        """Where the run's checkpoints, reports and exports go."""
        return self.home / self.config.run.folder / self.config.run.name

    @cached_property
    def store(self) -> Store:
        """The store, migrated."""
        url = make_url(self.config.run.database)
        if url.drivername.startswith("sqlite") and url.database and not Path(url.database).is_absolute():
            url = url.set(database=str(self.home / url.database))
        store = Store(url.render_as_string(hide_password=False))
        store.migrate()
        return store

    @property
    def usd_limit(self) -> int:
        """The dollar limit in micro-dollars."""
        return to_micro(self.config.budget.usd)

    @property
    def minutes_limit(self) -> int:
        """The reviewers' limit in micro-minutes."""
        return to_micro(self.config.budget.minutes)

    def config_of(self, current: Round) -> Config:
        """The config a round was opened with, paths and secrets' names from today's file."""
        return Config.model_validate(rounds.config_of(self.store, current), strict=False)

    @contextmanager
    def parts(self) -> Iterator[Parts]:
        """Everything a round needs; the recorded teacher, where there is one, runs while the block lasts."""
        self.examine_white_box()
        for asked in (self.config.teacher, *self.config.teacher.stronger, self.config.judge):
            Hider(asked.redact)  # refuses a file of names that cannot be read before anything is spent
        self._make_folder()
        with (
            self.cluster() as cluster,
            self.teacher(cluster) as teacher,
            self.judge(cluster) as judge,
            self.stronger(cluster) as stronger,
        ):
            yield Parts(
                trainer=self.trainer() if cluster is None else cluster.trainer(self.trainer()),
                teacher=teacher,
                judge=judge,
                stronger=stronger,
                batches=self._batches(teacher),
                reviewers=self.desk(),
                progress=self.progress,
                folder=self.folder / "checkpoints",
                cluster=cluster or InProcess(),
            )

    @contextmanager
    def cluster(self) -> Iterator["RayCluster | None"]:
        """The cluster, where the config names one.

        Raises:
            MissingExtra: Ray is not installed.
            ClusterDown: it cannot be reached, or has no room for the workers.
        """
        if self.config.cluster.kind == "local":
            yield None
            return
        from connectors.cluster import opened  # noqa: PLC0415 - an extra

        student = self._with_paths(self.config.student)
        with opened(self.config.cluster, student, self.config.task, self.progress.say) as cluster:
            yield cluster

    def _make_folder(self) -> None:
        """Make the run's folder before anything is spent.

        Raises:
            BadConfig: it cannot be made, or may not be written.
        """
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            problem = "" if os.access(self.folder, os.W_OK) else "it may not be written"
        except OSError as error:
            problem = error.strerror or str(error)
        if problem:
            raise BadConfig(
                f"{self.path}: run.folder: {self.folder}: {problem}; give the folder's owner back the right to write, "
                "or name another folder, and run again: what is stored stays"
            )

    def trainer(self, config: Config | None = None) -> Trainer:
        """What makes students, by today's config or another; a local model directory starts at the config file.

        Raises:
            MissingExtra: torch or a package beside it is not installed.
        """
        config = config or self.config
        return makes_students(self._with_paths(config.student), config.task)

    def examine_white_box(self) -> None:
        """Refuse a local teacher that the student could not learn from, before anything is spent.

        Raises:
            StudentError: the teacher is not on this disk, or its tokens are not the student's.
        """
        student = self._with_paths(self.config.student)
        if student.white_box is not None:
            with extra("student", "student.white_box"):
                from loop.student import white_box  # noqa: PLC0415 - torch takes seconds to load

            white_box.examine(student, student.white_box, cache_folder())

    def _with_paths(self, student: StudentConfig) -> StudentConfig:
        """The settings with the whole paths of models whose folders start at the config file."""
        changes: dict[str, object] = {"model": self._local(student.model)}
        if student.white_box is not None:
            teacher = self._local(student.white_box.teacher)
            changes["white_box"] = student.white_box.model_copy(update={"teacher": teacher})
        return student.model_copy(update=changes)

    def _local(self, model: str) -> str:
        return str(self.home / model) if (self.home / model).is_dir() else model

    @contextmanager
    def teacher(self, cluster: "RayCluster | None" = None) -> Iterator[Teacher]:
        """The teacher: a paid endpoint, or the recorded one on loopback; asked from the nodes of a cluster."""
        with self.endpoint(self.config.teacher, cluster) as teacher:
            yield teacher

    @contextmanager
    def stronger(self, cluster: "RayCluster | None" = None) -> Iterator[tuple[Teacher, ...]]:
        """The stronger teachers, in the order of the config."""
        with ExitStack() as stack:
            yield tuple(stack.enter_context(self.endpoint(each, cluster)) for each in self.config.teacher.stronger)

    @contextmanager
    def judge(self, cluster: "RayCluster | None" = None) -> Iterator[Teacher | None]:
        """The judge, where the config names one: a paid endpoint, or a recorded one on loopback."""
        if not self.config.judge.model:
            yield None
            return
        with self.endpoint(self.config.judge, cluster) as judge:
            yield judge

    def _batches(self, teacher: Teacher) -> Batches | None:
        """The batch API of the teacher's endpoint."""
        from connectors.openai_batches import OpenAIBatches  # noqa: PLC0415 - loads the openai package
        from connectors.openai_teacher import OpenAITeacher  # noqa: PLC0415 - as above

        return OpenAIBatches(teacher) if isinstance(teacher, OpenAITeacher) else None

    @contextmanager
    def endpoint(self, config: EndpointConfig, cluster: "RayCluster | None" = None) -> Iterator[Teacher]:
        """An endpoint of the config: a paid one, or a recorded one on loopback; asked from the nodes of a cluster."""
        from connectors.openai_teacher import OpenAITeacher  # noqa: PLC0415 - loads the openai package
        from connectors.recorded_teacher import serving  # noqa: PLC0415 - loads the web server

        through = (lambda _: None) if cluster is None else cluster.through
        if config.recorded is None:
            yield (
                OpenAITeacher(config, through(config))
                if config.replies is None
                else self._remembering(config, config.replies, through(config))
            )
            return
        file = self.home / config.recorded
        if not file.is_file():
            raise BadConfig(f"{self.path}: {config.table}.recorded: {file} does not exist")
        with serving(file) as address:
            served = config.model_copy(update={"base_url": address})
            yield OpenAITeacher(served, through(served))

    def _remembering(self, config: EndpointConfig, file: Path, through: "Through | None") -> Teacher:
        from connectors.memory import RememberingTeacher  # noqa: PLC0415 - loads the openai package

        return RememberingTeacher(
            config,
            self.home / file,
            asked=lambda prompt_hash: asking.times_asked(self.store, self.config.run.name, prompt_hash),
            say=self.progress.say,
            through=through,
        )

    def held(self, *, seconds: float = 60.0) -> AbstractContextManager[Claim]:
        """The run, which nobody else carries on or changes meanwhile; the lease is of so many seconds."""
        return claims.holding(self.store, self.config.run.name, "run", self.config.run.name, lease_seconds=seconds)

    def board(self, slot: int = 0) -> Board:
        """Where reviewers judge rationales: a project for each slot, so that second reviews are blind."""
        if slot not in self._boards:
            numbered = f" {slot + 1}" if slot else ""
            self._boards[slot] = self._board_with(self._page, f"{self.config.run.name}{numbered}")
        return self._boards[slot]

    def open_boards(self) -> list[Board]:
        """The boards on which the run has reviews, or the first one where it has none yet."""
        return [self.board(slot) for slot in reviews.RunReviewBook(self.store, self.config.run.name).slots() or [0]]

    @cached_property
    def _page(self) -> Page:
        return review_page(self.config.task, student_answers=self.config.review.student_answers)

    @cached_property
    def holdout_board(self) -> Board:
        """Where people answer questions for the holdout."""
        return self._board_with(holdout_page(), "holdout")

    def practice_board(self, task: TaskConfig) -> Board:
        """Where reviewers practise."""
        return self._board_with(review_page(task), "practice")

    def _board_with(self, page: Page, suffix: str) -> Board:
        review = self.config.review
        title = f"{review.project} {suffix}"
        if review.board == "fake":
            file = self.folder / f"fake-board-{suffix}.json"
            return FakeBoard(file, title=title, tasks_per_project=review.tasks_per_project)
        with extra("label-studio", "Label Studio"):
            from connectors.label_studio import LabelStudioBoard, client  # noqa: PLC0415 - seconds, and an extra

        url, token, name = self.label_studio()
        return LabelStudioBoard(
            url, token, title=title, page=page, tasks_per_project=review.tasks_per_project, name=name,
            http=client(self._pace),
        )  # fmt: skip

    def label_studio(self) -> tuple[str, str, str | None]:
        """Address and token of the server, and the board's name where that is not its address.

        Raises:
            BadConfig: neither a token nor a local server is there.
        """
        from connectors.studio_server import running  # noqa: PLC0415

        review = self.config.review
        token = os.environ.get(review.token_env)
        if token is not None:
            return review.url, token, None
        studio = running(self.studio_folder)
        if studio is None:
            raise BadConfig(
                f"{review.token_env} is not set and no local Label Studio runs; "
                "set the variable to the token of your server, or start one with `preceptor review up`"
            )
        return studio.url, studio.token, "label-studio (local)"

    @cached_property
    def _pace(self) -> "Pace | None":
        """What all boards wait for before a request, where the config sets a pace."""
        from connectors.label_studio import Pace  # noqa: PLC0415 - as above

        per_second = self.config.review.requests_per_second
        return None if per_second is None else Pace(per_second)

    @property
    def studio_folder(self) -> Path:
        """Where the local Label Studio of this project keeps its data."""
        return self.home / self.config.run.folder / "label-studio"

    def desk(self) -> Desk:
        """The reviewers' desk on the board."""
        book = reviews.RunReviewBook(self.store, self.config.run.name)
        review = self.config.review
        worth = partial(review_worth, self.store, self.config)
        queue = Queue(worth, review.reviewers, timedelta(hours=review.claim_hours))
        return Desk(self.board, book, self._details, self.config.task, queue, listing_hours=review.full_listing_hours)

    def _details(self, rows: Sequence[Rationale]) -> dict[int, Details]:
        """What a reviewer sees beside each rationale."""
        ids = [each.id or 0 for each in rows]
        flags, risks = rationales.flags(self.store, ids), rationales.risks(self.store, ids)
        scored = {
            round_id: rounds.score_parts(self.store, round_id, [each.item_key for each in rows])
            for round_id in {each.round_id for each in rows}
        }
        present = self.present_answers.known() if self.config.review.student_answers else {}
        found: dict[int, Details] = {}
        for number, each in zip(ids, rows, strict=True):
            picked: Mapping[str, Any] = scored[each.round_id].get(each.item_key, {})
            student = present.get(each.item_key, picked)
            found[number] = Details(
                flags=tuple(flags.get(number, [])),
                risk=risks.get(number, 0.0),
                student_steps=tuple(student.get("steps", ())),
                student_answer=student.get("answer"),
                settled=0 if each.is_prefix else len(rationales.prefix_steps(self.store, each)),
            )
        return found

    @cached_property
    def present_answers(self) -> PresentAnswers:
        """What the student in force answers now."""
        return PresentAnswers(self.store, self.config.run.name, self.folder, self.trainer, self.progress.say)

    def simulated_reviewer(self) -> SimulatedReviewer | None:
        """The stand-in for reviewers, where the config asks for one. It knows which steps were planted."""
        settings = self.config.simulated_reviewer
        if settings.truth is None:
            return None
        truth = read_truth(self.home / settings.truth)
        for key, steps in planted.wrong_steps(self.store, self.config.run.name).items():
            if key in truth:
                truth[key] = replace(truth[key], wrong=(*truth[key].wrong, *steps))
        slots = reviews.RunReviewBook(self.store, self.config.run.name).slots()
        return SimulatedReviewer(
            [self.board(slot) for slot in slots],
            truth,
            self.config.task,
            error_rate=settings.error_rate,
            seconds=settings.seconds,
            continue_share=settings.continue_share,
            seed=self.config.run.seed,
        )
