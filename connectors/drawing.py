"""Charts for pages as SVG elements. Colours and sizes are the style sheet's, so that they follow light, dark and width.

Nothing in them is a style or a script, so the strictest Content-Security-Policy lets them pass.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from xml.etree import ElementTree as ET

from markupsafe import Markup
from matplotlib.ticker import MaxNLocator

WIDTH, HEIGHT = 480.0, 280.0
LEFT, RIGHT, TOP, BOTTOM = 58.0, 16.0, 14.0, 50.0
ROOM = 1.05
"""The axes end so much beyond the last point."""
Ticks = Sequence[tuple[float, str]]


@dataclass(frozen=True)
class Point:
    """A measured point with its interval, what it is called, and how large it is drawn."""

    x: float
    y: float
    low: float | None = None
    high: float | None = None
    name: str = ""
    radius: float = 4.0


@dataclass(frozen=True)
class Series:
    """Points that belong together. `kind` is its class in the style sheet, which gives the colour.

    With `band` the interval is an area, otherwise a whisker at each point.
    """

    kind: str
    points: Sequence[Point]
    band: bool = False
    line: bool = True


@dataclass(frozen=True)
class Axes:
    """What the two directions mean and how far they reach; `rules` are levels to be marked, by their class."""

    x: str
    y: str
    x_high: float
    y_high: float
    rules: Mapping[str, float] | None = None
    diagonal: bool = False
    x_ticks: Ticks | None = None
    said: str = ""
    """What the chart shows, for who cannot see it."""


def lines(series: Sequence[Series], axes: Axes) -> Markup:
    """Series of points in one frame."""
    frame = _Frame(axes)
    for each in series:
        group = ET.SubElement(frame.svg, "g", {"class": f"series {each.kind}"})
        if each.band:
            _band(group, each.points, frame)
        if each.line and len(each.points) > 1:
            _path(group, "line", [(frame.x(point.x), frame.y(point.y)) for point in each.points])
        for point in each.points:
            _point(group, point, frame, whisker=not each.band)
    return frame.drawn()


def stacks(columns: Sequence[tuple[str, Mapping[str, float]]], axes: Axes) -> Markup:
    """Columns of parts, one on the other; each part's name is its class in the style sheet."""
    ticks = [(place + 0.5, name) for place, (name, _) in enumerate(columns)]
    frame = _Frame(_with(axes, len(columns), ticks))
    wide = min(48.0, 0.62 * (frame.x(1) - frame.x(0)))
    for place, (name, parts) in enumerate(columns):
        below = 0.0
        for kind, amount in parts.items():
            if amount:
                top, bottom = frame.y(below + amount), frame.y(below)
                left = frame.x(place + 0.5) - wide / 2
                box = {"x": _n(left), "y": _n(top), "width": _n(wide), "height": _n(bottom - top)}
                bar = ET.SubElement(frame.svg, "rect", {"class": f"part {kind}", **box})
                ET.SubElement(bar, "title").text = f"{name}: {amount:g} {kind}"
            below += amount
    return frame.drawn()


def _with(axes: Axes, columns: int, ticks: Ticks) -> Axes:
    """Axes on which so many columns stand, with a name under each, or under some where they are many."""
    step = -(-len(ticks) // 12) or 1
    return Axes(axes.x, axes.y, max(columns, 4), axes.y_high, axes.rules, x_ticks=ticks[::step], said=axes.said)


class _Frame:
    """The element with its axes, and where a value lies in it."""

    def __init__(self, axes: Axes) -> None:
        self._axes = axes
        self._right, self._top = axes.x_high * (1 if axes.x_ticks else ROOM) or 1.0, axes.y_high * ROOM or 1.0
        view = f"0 0 {_n(WIDTH)} {_n(HEIGHT)}"
        self.svg = ET.Element("svg", {"viewBox": view, "class": "chart", "role": "img", "aria-label": axes.said})
        net = ET.SubElement(self.svg, "g", {"class": "net"})
        names = ET.SubElement(self.svg, "g", {"class": "axis"})
        for value, name in _ticks(self._top):
            _line(net, "", LEFT, self.y(value), WIDTH - RIGHT, self.y(value))
            _text(names, name, LEFT - 8, self.y(value), "y")
        for value, name in axes.x_ticks or _ticks(self._right):
            if not axes.x_ticks:
                _line(net, "", self.x(value), TOP, self.x(value), HEIGHT - BOTTOM)
            _text(names, name, self.x(value), HEIGHT - BOTTOM + 20, "x")
        _line(names, "base", LEFT, HEIGHT - BOTTOM, WIDTH - RIGHT, HEIGHT - BOTTOM)
        _text(names, axes.x, (LEFT + WIDTH - RIGHT) / 2, HEIGHT - 8, "x name")
        turned = _text(names, axes.y, 14, (TOP + HEIGHT - BOTTOM) / 2, "x name")
        turned.set("transform", f"rotate(-90 14 {_n((TOP + HEIGHT - BOTTOM) / 2)})")
        if axes.diagonal:
            _line(self.svg, "rule diagonal", self.x(0), self.y(0), self.x(1), self.y(1))

    def x(self, value: float) -> float:
        """Where a value lies from left to right."""
        return LEFT + value / self._right * (WIDTH - LEFT - RIGHT)

    def y(self, value: float) -> float:
        """Where a value lies from top to bottom; what lies beyond the frame stays at its edge."""
        return HEIGHT - BOTTOM - min(max(value / self._top, 0.0), 1.0) * (HEIGHT - TOP - BOTTOM)

    def drawn(self) -> Markup:
        """The element as text; the rules come last, above everything."""
        for kind, level in (self._axes.rules or {}).items():
            if level <= self._top:
                _line(self.svg, f"rule {kind}", LEFT, self.y(level), WIDTH - RIGHT, self.y(level))
        return Markup(ET.tostring(self.svg, encoding="unicode"))


def _ticks(high: float) -> list[tuple[float, str]]:
    """Round values from 0 up to `high`, with their names."""
    found = [float(value) for value in MaxNLocator(nbins=5, steps=[1, 2, 2.5, 5, 10]).tick_values(0, high)]
    return [(value, f"{value:g}") for value in found if 0 <= value <= high * 1.001]


def _point(group: ET.Element, point: Point, frame: _Frame, *, whisker: bool) -> None:
    """A point; its name shows where the pointer rests."""
    x, y = frame.x(point.x), frame.y(point.y)
    mark = ET.SubElement(group, "g")
    ET.SubElement(mark, "title").text = point.name
    if whisker and point.low is not None and point.high is not None:
        _line(mark, "whisker", x, frame.y(point.low), x, frame.y(point.high))
    ET.SubElement(mark, "circle", {"class": "dot", "cx": _n(x), "cy": _n(y), "r": _n(point.radius)})
    ET.SubElement(mark, "circle", {"class": "reach", "cx": _n(x), "cy": _n(y), "r": "14"})


def _band(group: ET.Element, points: Sequence[Point], frame: _Frame) -> None:
    """The area between the ends of the intervals; a single one is a narrow column."""
    known = [point for point in points if point.low is not None and point.high is not None]
    aside = 6.0 if len(known) == 1 else 0.0
    upper = [(frame.x(each.x) + side, frame.y(each.high or 0)) for each in known for side in sorted({-aside, aside})]
    lower = [(frame.x(each.x) + side, frame.y(each.low or 0)) for each in known for side in sorted({-aside, aside})]
    if known:
        _path(group, "band", [*upper, *reversed(lower)], closed=True)


def _path(parent: ET.Element, kind: str, places: Sequence[tuple[float, float]], *, closed: bool = False) -> None:
    steps = " L".join(f"{_n(x)} {_n(y)}" for x, y in places)
    ET.SubElement(parent, "path", {"class": kind, "d": f"M{steps}{'Z' if closed else ''}"})


def _line(parent: ET.Element, kind: str, x1: float, y1: float, x2: float, y2: float) -> None:
    ends = {"x1": _n(x1), "y1": _n(y1), "x2": _n(x2), "y2": _n(y2)}
    ET.SubElement(parent, "line", {**({"class": kind} if kind else {}), **ends})


def _text(parent: ET.Element, text: str, x: float, y: float, kind: str) -> ET.Element:
    element = ET.SubElement(parent, "text", {"class": kind, "x": _n(x), "y": _n(y)})
    element.text = text
    return element


def _n(value: float) -> str:
    return f"{value:.1f}".removesuffix(".0")
