"""What was measured of students, and of the holdout itself, for programs and in sentences."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from loop.config import QueryConfig
from loop.records import Contamination, Evaluation, Harm, Part
from loop.report import Accuracy
from loop.store import contamination
from loop.store.database import Store

SHOWN = 5
"""Keys that a sentence names."""
HARMS: Mapping[str, str] = {
    Harm.NUMBER: "a number changed",
    Harm.WORD: "a word changed",
    Harm.SHUFFLED: "steps shuffled",
    Harm.OTHER: "another item's rationale",
}
Row = Mapping[str, Any]


def student_figures(
    right: Mapping[int, tuple[int, int]],
    checkpoint_id: int | None,
    evaluated: Mapping[int, Evaluation],
    rounds_of: Mapping[int, int],
) -> dict[str, Any] | None:
    """Accuracy of a checkpoint on `test`, and what else was measured of it; None where it never answered `test`."""
    counted = right.get(checkpoint_id or 0)
    if counted is None:
        return None
    row = evaluated.get(checkpoint_id or 0)
    return asdict(Accuracy.of(*counted)) | {"evaluation": None if row is None else of_rounds(row.figures, rounds_of)}


def of_rounds(figures: Row, rounds_of: Mapping[int, int]) -> dict[str, Any]:
    """The figures, with the round instead of the checkpoint that the student was compared with."""
    paired = figures["paired"]
    return {**figures, "paired": paired and {**paired, "against": rounds_of.get(paired["against"])}}


def evaluation_text(student: Row | None) -> list[str]:
    """What was measured of a student, a sentence each; nothing where nothing was."""
    found = None if student is None else student["evaluation"]
    if found is None:
        return []
    return [
        *_f1(found),
        *_calibration(found["calibration"]),
        *_rationales(found["rationales"]),
        *_faithfulness(found["faithfulness"]),
        *_paired(found["paired"]),
        *_domains(found["test"]["domains"]),
    ]


def last_evaluation(rounds: Sequence[Row]) -> list[str]:
    """What was measured of the student in force, and of a newer one that was refused."""
    last = next((each for each in reversed(rounds) if each["student"] is not None), None)
    if last is None:
        return []
    lines = [f"the student in force: {line}" for line in evaluation_text(last["student"])]
    if last["candidate"] is not None and last["candidate"] != last["student"]:
        lines += [f"the one refused in round {last['round']}: {line}" for line in evaluation_text(last["candidate"])]
    return lines


def estimate_text(found: Row, name: str = "value") -> str:
    """A figure with its interval and n."""
    return f"{found[name]:.3f} ({found['low']:.3f} to {found['high']:.3f}, n={found['n']})"


def _f1(found: Row) -> list[str]:
    names = {"macro_f1": "macro F1", "span_f1": "span F1, exact", "span_f1_overlap": "span F1, overlapping"}
    return [
        f"{name} on test {estimate_text(found['test'][key])}"
        for key, name in names.items()
        if found["test"].get(key) is not None
    ]


def _calibration(found: Row) -> list[str]:
    test = found[Part.TEST.value]
    before, after = test["before"], test["after"]
    if before is None:
        return []
    said = (
        f"calibration error on test {before['error']:.3f} (n={before['n']}), "
        f"by chance alone up to {before['by_chance']:.3f}"
    )
    if after is None:
        return [f"{said}; {found['fitted_on']} answers on dev are too few for a temperature ({found['fewest']})"]
    return [
        f"{said}; at temperature {found['temperature']:.2f}, fitted on {found['fitted_on']} of dev, "
        f"{after['error']:.3f} (by chance up to {after['by_chance']:.3f})"
    ]


def _rationales(found: Row | None) -> list[str]:
    if found is None:
        return []
    steps, whole = found["steps"], found["whole"]
    return [
        f"of its own {found['written']} steps on dev {steps['value']:.3f} ({steps['low']:.3f} to {steps['high']:.3f}) "
        f"hold by the checks, of its rationales {estimate_text(whole, 'share')} as a whole"
    ]


def _faithfulness(found: Row | None) -> list[str]:
    if found is None or found["changed"] is None:
        return []
    harms = [
        f"{name} {each['share']:.2f} of {each['n']}"
        for harm, name in HARMS.items()
        if (each := found["harms"][harm]) is not None
    ]
    return [
        f"its answer changes with what its rationale says in {estimate_text(found['changed'])} ({', '.join(harms)})"
    ]


def _paired(found: Row | None) -> list[str]:
    if found is None:
        return []
    return [
        f"against the student of round {found['against']} on {part.value}: {each['difference']:+.3f} "
        f"({each['low']:+.3f} to {each['high']:+.3f}), gained {each['gained']}, lost {each['lost']} of {each['n']}, "
        "McNemar " + (f"p={each['p']:.3f}" if each["p"] >= 0.001 else "p<0.001")
        for part in Part
        if (each := found[part.value]) is not None
    ]


def _domains(found: Row) -> list[str]:
    if len(found) < 2:
        return []
    return [
        "by domain on test: " + ", ".join(f"{name} {estimate_text(each, 'accuracy')}" for name, each in found.items())
    ]


def holdout_duplicates(store: Store, config: QueryConfig) -> dict[str, Any] | None:
    """Pool items that read like holdout items, as the last look found them; None where nobody looked yet."""
    row = contamination.look(store, config.holdout_similarity)
    return None if row is None else _duplicates(row, config)


def contamination_text(found: Row) -> str:
    """How many pool items read like holdout items, and whether they are asked."""
    said = f"{found['items']} of {found['pool']} pool items read like holdout items"
    if not found["items"]:
        return said
    return f"{said} and are {'asked all the same' if found['asked'] else 'not asked'}"


def duplicates_text(row: Contamination, config: QueryConfig) -> str:
    """How many pool items read like holdout items, which, and what becomes of them."""
    found = _duplicates(row, config)
    named = [f"{pair['item']} like {pair['holdout']}" for pair in found["pairs"][:SHOWN]]
    more = ", ..." if found["items"] > SHOWN else ""
    if not named:
        return f"none of {row.pool} pool items reads like one of {row.holdout} holdout items"
    said = f"{found['items']} of {row.pool} pool items read like holdout items ({', '.join(named)}{more})"
    if config.allow_holdout_duplicates:
        return f"{said} and are asked all the same: the holdout's figures are too good by that"
    return f"{said} and are not asked; query.allow_holdout_duplicates = true asks them"


def seed_duplicates_text(row: Contamination, config: QueryConfig) -> str:
    """Which seed items read like holdout items, and what becomes of them."""
    pairs = _duplicates(row, config)["pairs"]
    named = [f"{pair['item']} like {pair['holdout']}" for pair in pairs[:SHOWN]]
    more = ", ..." if len(pairs) > SHOWN else ""
    said = f"{len(pairs)} of {row.pool} seed items read like holdout items ({', '.join(named)}{more})"
    if config.allow_holdout_duplicates:
        return f"{said} and are learned all the same: the holdout's figures are too good by that"
    return f"{said} and are neither learned nor shown to the teacher"


def _duplicates(row: Contamination, config: QueryConfig) -> dict[str, Any]:
    pairs: Sequence[dict[str, Any]] = [
        {"item": key, "holdout": holdout, "similarity": round(similarity, 4)}
        for key, (holdout, similarity) in sorted(row.pairs.items())
    ]
    return {
        "similarity": row.similarity,
        "asked": config.allow_holdout_duplicates,
        "items": len(pairs),
        "pool": row.pool,
        "pairs": pairs,
    }
