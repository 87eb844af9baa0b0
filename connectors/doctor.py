"""Checks everything a campaign needs and says the cure where something is missing."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from connectors.wiring import Project
from loop.config import Config, load
from loop.errors import PreceptorError
from loop.records import Split
from loop.store import items
from loop.teacher.judge_prompt import LONG_STEP, a_step_request
from loop.teacher.prompt import request_for, worst_case


@dataclass(frozen=True)
class Finding:
    """One part that was looked at."""

    part: str
    fine: bool
    text: str


def diagnose(path: Path, open_project: Callable[[], Project]) -> list[Finding]:
    """Look at each part; later parts are left out where the config cannot be read."""
    config = _try("config", lambda: _config(path))
    if not config.fine:
        return [config]
    project = open_project()
    looks: dict[str, Callable[[], str]] = {
        "database": lambda: _database(project),
        "student": lambda: _student(project),
        "teacher": lambda: _teacher(project),
        **({"judge": lambda: _judge(project)} if project.config.judge.model else {}),
        "reviewers": lambda: _reviewers(project),
        "budget": lambda: _budget(project),
    }
    return [config, *(_try(part, look) for part, look in looks.items())]


def _try(part: str, look: Callable[[], str]) -> Finding:
    try:
        return Finding(part, True, look())
    except PreceptorError as error:
        return Finding(part, False, str(error))


def _config(path: Path) -> str:
    load(path)
    return f"{path} is right"


def _database(project: Project) -> str:
    counts = items.count(project.store)
    pool, holdout = counts.get(Split.POOL, 0), counts.get(Split.HOLDOUT, 0)
    if not pool:
        raise PreceptorError("the pool is empty; `preceptor ingest FILE` fills it")
    if not holdout:
        raise PreceptorError(
            f"{pool} pool items but no holdout; `preceptor ingest FILE --split holdout` or `preceptor holdout label N`"
        )
    return f"{pool} pool items, {holdout} holdout items"


def _student(project: Project) -> str:
    student = project.config.student
    project.trainer().student(None)
    writes = "; OpenVINO writes its explanations" if student.engine == "openvino" else ""
    return f"{student.model} loads{writes}"


def _teacher(project: Project) -> str:
    config = project.config
    pool = items.of_split(project.store, Split.POOL)
    if not pool:
        raise PreceptorError("no item to price a request for; ingest first")
    with project.teacher() as teacher:
        request = request_for(pool[0], config.task, config.teacher, (), 0)
        price = worst_case(request, teacher.price)
    return f"{config.teacher.model}: one request costs at most ${price / 1e6:.6f} (nothing was asked)"


def _judge(project: Project) -> str:
    config = project.config
    pool = items.of_split(project.store, Split.POOL)
    if not pool:
        raise PreceptorError("no item to price a request for; ingest first")
    with project.judge() as judge:
        assert judge is not None
        price = worst_case(a_step_request(pool[0], config.task, config.judge), judge.price)
    same = "; it is the teacher itself: a model of another family finds more" if _same(config) else ""
    priced = f"a first step of {LONG_STEP} characters costs at most ${price / 1e6:.6f} (nothing was asked)"
    return f"{config.judge.model}: {priced}{same}"


def _same(config: Config) -> bool:
    return (config.judge.model, config.judge.base_url) == (config.teacher.model, config.teacher.base_url)


def _reviewers(project: Project) -> str:
    board, review = project.board(), project.config.review
    address, names = board.address(), [each.name for each in review.reviewers]
    if review.board == "label_studio" and (unknown := [name for name in names if name not in board.people()]):
        raise PreceptorError(f"no account for {', '.join(unknown)}; `preceptor review invite {' '.join(unknown)}`")
    wanted = 1 + (review.second_share > 0 or review.audit_share * review.certify_share > 0)
    wanted += wanted == 2 and review.disagreements == "person"
    if names and len(names) < wanted:
        raise PreceptorError(
            f"review.reviewers names {len(names)}, but with second reviews (review.second_share, review.certify_share) "
            f"{wanted} people are needed; name more, or leave review.reviewers empty"
        )
    return f"reviewers work at {address}"


def _budget(project: Project) -> str:
    budget = project.config.budget
    if budget.usd <= 0:
        raise PreceptorError("budget.usd is 0: nothing can be asked; set it to what the campaign may cost")
    also = " and the judge" if project.config.judge.model else ""
    return f"${budget.usd:.2f} for the teacher{also}, {budget.minutes:.0f} minutes for reviewers"
