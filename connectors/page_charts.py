"""The charts of the pages: which values stand in which."""

from collections.abc import Mapping, Sequence
from typing import Any

from markupsafe import Markup

from connectors import drawing
from connectors.drawing import Axes, Point, Series
from loop.interval import wilson
from loop.records import DecisionKind
from loop.report import RiskBin

Row = dict[str, Any]


def curve(points: Sequence[Row], against: str) -> Markup | None:
    """Accuracy against dollars or examples; None before the first student was tested."""
    if not points:
        return None
    label = "US dollars spent" if against == "usd" else "examples trained on"
    marks = [
        Point(each[against], each["accuracy"], each["low"], each["high"], _said(each, each[against], label))
        for each in points
    ]
    last = points[-1]
    axes = Axes(
        x=label,
        y="accuracy on test",
        x_high=max(each[against] for each in points),
        y_high=min(1.0, 1.25 * max(each["high"] for each in points)),
        said=f"Test accuracy against {label}: {last['accuracy']:.3f} after round {last['round']}; the figures follow",
    )
    return drawing.lines([Series("ours", marks)], axes)


def _said(each: Mapping[str, Any], x: float, label: str) -> str:
    interval = f"{each['accuracy']:.3f} ({each['low']:.3f} to {each['high']:.3f}, n={each['n']})"
    return f"round {each['round']}: {interval} at {x:g} {label}"


def saving(savings: Sequence[Row]) -> Markup | None:
    """Selected items against the control arm, whose band holds what chance allows the selected ones to lie in."""
    if not savings:
        return None
    counted = any(each["by_count"] for each in savings)
    at, equal = ("asked", "as many items") if counted else ("usd", "the same dollars")
    ours = [Point(each[at], each["selected"], name=f"round {each['round']}: selected") for each in savings]
    control = [
        Point(
            each[at],
            each["control"],
            max(0.0, each["selected"] - each["high"]),
            min(1.0, each["selected"] - each["low"]),
            f"round {each['round']}: control arm",
        )
        for each in savings
    ]
    top = max(point.high or 0.0 for point in control)
    axes = Axes(
        x="items asked for either student" if counted else "US dollars spent on either student",
        y="accuracy on dev",
        x_high=max(each[at] for each in savings),
        y_high=min(1.0, 1.25 * max(top, *(point.y for point in ours))),
        said=f"Dev accuracy of students of selected items and of the control arm for {equal}",
    )
    return drawing.lines([Series("control", control, band=True), Series("ours", ours)], axes)


def decisions(figures: Sequence[Row]) -> Markup | None:
    """What was decided in each round; None where nothing was."""
    columns = [(str(each["round"]), {kind.value: each[kind.value] for kind in DecisionKind}) for each in figures]
    most = max((sum(parts.values()) for _, parts in columns), default=0)
    if not most:
        return None
    axes = Axes("round", "items", 1, most, said="What was decided in each round; the figures stand in the table")
    return drawing.stacks(columns, axes)


def burn(found: Row, label: str, limit: float) -> Markup | None:
    """Spending round by round, where it leads, and the limit; None before a round has closed."""
    if len(found["points"]) < 2:
        return None
    spent = [Point(each["round"], each["spent"], name=_spent(each, label)) for each in found["points"]]
    ahead = [
        Point(each["round"], each["spent"], each["low"], each["high"], f"forecast, {_spent(each, label)}", 2.5)
        for each in found["ahead"]
    ]
    reach = max([point.y for point in spent] + [point.high or 0.0 for point in ahead])
    last = int(max(point.x for point in [*spent, *ahead]))
    step = -(-last // 8) or 1
    axes = Axes(
        x="rounds closed",
        y=label,
        x_high=last,
        y_high=max(reach, limit) if limit < 4 * reach else 1.15 * reach,
        rules={"limit": limit},
        x_ticks=[(number, str(number)) for number in range(0, last + 1, step)],
        said=f"{label} spent: {spent[-1].y:g} after {spent[-1].x:g} rounds, limit {limit:g}",
    )
    return drawing.lines([Series("forecast", ahead, band=True), Series("ours", spent)], axes)


def _spent(each: Mapping[str, Any], label: str) -> str:
    return f"after round {each['round']}: {each['spent']:.4g} {label}"


def reliability(bins: Sequence[RiskBin]) -> Markup | None:
    """Share that reviewers did not accept against the mean risk; a point grows with its count."""
    rows = [counted(each) for each in bins if each.reviewed]
    if not rows:
        return None
    points = [
        Point(
            each["expected"],
            each["share"],
            each["low"],
            each["high"],
            f"risk {each['from']:g} to {each['to']:g}: {each['wrong']} of {each['n']} not accepted",
            3 + 5 * min(1.0, each["n"] / 60),
        )
        for each in rows
    ]
    said = "Share not accepted by reviewers against the mean risk; the figures follow"
    axes = Axes("mean risk", "share not accepted", 1, 1, diagonal=True, said=said)
    return drawing.lines([Series("ours", points, line=False)], axes)


def counted(each: RiskBin) -> Row:
    """A part of the unit interval in which something was reviewed, as plain values."""
    low, high = wilson(each.wrong, each.reviewed)
    return {
        "from": each.low,
        "to": each.high,
        "expected": each.expected,
        "n": each.reviewed,
        "wrong": each.wrong,
        "share": each.wrong / each.reviewed,
        "low": low,
        "high": high,
    }
