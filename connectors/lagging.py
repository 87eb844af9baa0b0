"""The domains in which the student lags behind the teacher, for programs and in a sentence."""

from collections.abc import Mapping
from typing import Any

from loop.config import Config
from loop.records import Stage
from loop.stages.lagging import BY, lags
from loop.store import domains, rounds
from loop.store.database import Store

NAMED = 5
"""So many domains are named in a sentence."""
ALIKE = 1e-6
"""Shares that differ by no more are equal."""
Row = Mapping[str, Any]


def lagging_figures(store: Store, run: str, config: Config) -> dict[str, Any] | None:
    """How far each domain lags, the share that it would get, and its picks in the newest batch; None where there is
    but one domain, or no student has answered dev yet.
    """
    found = lags(store, run)
    if len(found) < 2:
        return None
    chosen = [each for each in rounds.all_rounds(store, run) if each.stage is not Stage.SELECT][-1]
    picked = domains.picked(store, chosen.id or 0)
    return {
        "by": "error rates",
        "acquisition": config.query.acquisition,
        "domain_share": config.query.domain_share,
        "mixture": config.student.mixture,
        "picked_in": chosen.number,
        "picked": picked.total(),
        "domains": [
            {
                "domain": each.domain,
                "gap": each.gap,
                "share": each.share,
                "lags": each.share > 1 / len(found) + ALIKE,
                "student": {"wrong": each.student[0], "n": each.student[1]},
                "teacher": {"wrong": each.teacher[0], "n": each.teacher[1]},
                "picked": picked[each.domain],
            }
            for each in found
        ],
    }


def lagging_text(found: Row) -> list[str]:
    """Which domains lag, what that rests on, and what the batch makes of it, a sentence each."""
    behind = [each for each in found["domains"] if each["lags"]]
    if not behind:
        return [f"no domain lags behind the others, {BY}"]
    more = f" and {len(behind) - NAMED} more" if len(behind) > NAMED else ""
    return [
        f"the student lags, {BY}, in " + ", ".join(_domain(each, found) for each in behind[:NAMED]) + more,
        _use(found),
    ]


def _domain(each: Row, found: Row) -> str:
    student, teacher = ("{wrong} of {n}".format(**each[name]) for name in ("student", "teacher"))
    picked = f", {each['picked']} of {found['picked']} picks of round {found['picked_in']}" if found["picked"] else ""
    share = f"share of the next places {each['share']:.2f}"
    return f"{each['domain'] or 'no domain'} (wrong: student {student} on dev, teacher {teacher}; {share}{picked})"


def _use(found: Row) -> str:
    if found["acquisition"] == "random":
        said = 'batches do not look at that (query.acquisition = "random")'
    elif found["domain_share"]:
        return f"of each batch's picks {found['domain_share']:.0%} are spread over domains by these shares"
    else:
        said = "batches do not look at that (query.domain_share = 0)"
    return f"{said}, training does (student.mixture)" if found["mixture"] else said
