"""What came of revising the student's own explanations, as JSON-ready values and in words."""

from collections import Counter
from collections.abc import Mapping
from typing import Any

from loop.store import revisions
from loop.store.database import Store
from loop.teacher.revision import DEGENERATED


def revision_figures(store: Store, run: str) -> dict[str, Any] | None:
    """How many explanations were revised, in which ways, and what stands of them; None where none was ever checked.

    `first_wrong` counts explanations by their first wrong step, numbered from 1; those without one are `none`.
    """
    rows = [row for _, row in revisions.of_run(store, run)]
    done = [row for row in rows if row.problem is None]
    if not rows:
        return None
    steps, kept = sum(row.steps for row in done), sum(row.kept for row in done)
    first = Counter("none" if row.first_wrong is None else str(row.first_wrong + 1) for row in done)
    return {
        "checked": len(rows),
        "revised": len(done),
        "explained_anew": len(rows) - len(done),
        "ways": dict(sorted(Counter(row.way for row in done).items())),
        "first_wrong": dict(sorted(first.items())),
        "steps": steps,
        "kept": kept,
        "kept_share": kept / steps if steps else None,
        "degenerated": bool(steps) and 1 - kept / steps > DEGENERATED,
        "degenerated_items": sum(1 - row.kept / row.steps > DEGENERATED for row in done),
    }


def revision_text(found: Mapping[str, Any]) -> str:
    """The same in sentences."""
    lost = f", {found['explained_anew']} were explained anew instead" if found["explained_anew"] else ""
    said = f"revision: {found['checked']} of the student's explanations were checked{lost}"
    if found["kept_share"] is None:
        return said
    ways = ", ".join(f"{number} {way.replace('_', ' ')}" for way, number in found["ways"].items())
    said += f" ({ways}); {found['kept_share']:.0%} of their {found['steps']} steps are kept"
    if not found["degenerated"]:
        return said
    return (
        f"{said}: more than {DEGENERATED:.0%} are replaced, so revision degenerated into fresh explanation; "
        'set teacher.revise = "never" until the student explains better'
    )
