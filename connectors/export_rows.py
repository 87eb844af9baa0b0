"""The rows of a dataset: what was decided with where it comes from, put right where it may not be written so."""

import hashlib
import json
import re
from collections.abc import Iterable, Mapping, Sequence, Set
from operator import itemgetter
from typing import Any

import orjson

from connectors.formats import Example, Other, Row
from loop.records import Author, DecisionKind, Verdict
from loop.store.dataset import Origin, Version
from loop.store.versions import TEACHING, Content, Digest

UNWRITABLE = re.compile("[\\x00\\ud800-\\udfff]")
"""What UTF-8 cannot hold, and what ends a text in many programs."""
SAID = itemgetter(*Content._fields)
SILVER = DecisionKind.SILVER.value
AUTHORS, DECISIONS = {each: each.value for each in Author}, {each: each.value for each in DecisionKind}
"""As rows name them; an enumeration takes its time to say its value."""


class Rows:
    """Makes the rows of an export; `names` are the reviewers' pseudonyms.

    What nobody reviewed is `certified` by a promise about all of it, or by a threshold; not where that has lapsed.
    """

    def __init__(self, names: Mapping[str, str], *, certified: bool, lapsed: Set[int]) -> None:
        self._names, self._certified, self._lapsed = names, certified, lapsed
        self._lower = {name.lower(): shown for name, shown in names.items() if "@" in name}
        self._named = re.compile("|".join(map(re.escape, self._lower)), re.IGNORECASE)
        self._addresses = [name.encode() for name in self._lower]

    def row(self, origin: Origin) -> Row:
        """The row as the store has it."""
        row = _row(origin, self._names)
        if row["decision"] == SILVER:
            row["certified"] = self._certified or (row["certified"] and row["round"] not in self._lapsed)
        return row

    def other(self, version: Version, origin: Origin) -> Other:
        """A rationale of the item that is not the one in force, with where it comes from."""
        whence = {
            "authors": [AUTHORS[version.author]],
            "round": version.round,
            "risk": version.risk,
            "verdicts": _said(origin.verdicts.get(version.id, ()), self._names),
            "teacher_model": version.teacher_model,
            "prompt_hash": version.prompt_hash,
        }
        return Other(version, whence)

    def example(self, row: Row, origin: Origin, others: Sequence[Other] = ()) -> tuple[Example, bool]:
        """The row, ready to be written, and whether something in it had to be replaced."""
        try:
            line = orjson.dumps(row, option=orjson.OPT_APPEND_NEWLINE)
            fine = self._may_be_written(line) and (not others or self._may_be_written(_beside(origin, others)))
        except orjson.JSONEncodeError:
            fine = False
        if fine:
            return Example(row, origin, self._names, line, others), False
        return self._mended(row, origin, others), True

    def clean(self, text: str) -> str:
        """A text without what may not or cannot be written."""
        mended = UNWRITABLE.sub("\ufffd", text)
        return self._named.sub(lambda found: self._lower[found[0].lower()], mended) if self._lower else mended

    def _mended(self, row: Row, origin: Origin, others: Sequence[Other]) -> Example:
        """An example without what may not or cannot be written; the key of a row with such a key changes too."""
        mend = self._mend

        def version(each: Version) -> Version:
            answer = each.answer and json.dumps(mend(json.loads(each.answer)), ensure_ascii=False, sort_keys=True)
            return each._replace(steps=mend(each.steps), stated=mend(each.stated), answer=answer)

        said = {
            number: [each.model_copy(update={"steps": mend(each.steps)}) for each in given]
            for number, given in origin.verdicts.items()
        }
        own = origin._replace(chain=[*map(version, origin.chain)], verdicts=said)  # the rest stands in row and others
        line = orjson.dumps(row := mend(row), option=orjson.OPT_APPEND_NEWLINE)
        return Example(row, own, self._names, line, [Other(version(each), mend(whence)) for each, whence in others])

    def _mend(self, value: Any) -> Any:
        if isinstance(value, str):
            return self.clean(value)
        if isinstance(value, list):
            return [self._mend(each) for each in value]
        if isinstance(value, dict):
            return {name: self._mend(each) for name, each in value.items()}
        return value

    def _may_be_written(self, text: bytes) -> bool:
        """Whether a text holds neither NUL nor somebody's address."""
        if b"\\u0000" in text:
            return False
        return b"@" not in text or not any(name in text.lower() for name in self._addresses)


class Passed:
    """What version the rows are that went by, and a hash of them with all that stands beside what they say."""

    def __init__(self) -> None:
        self.version = Digest()
        self._beside = hashlib.sha256()

    @property
    def digest(self) -> str:
        """The hash of the rows so far, as lines of JSON."""
        return self._beside.hexdigest()

    def take(self, row: Row, line: bytes | None) -> None:
        """Take the next row as the store has it, and where that matters the line as which it is written."""
        if row["decision"] in TEACHING:
            self.version.take(Content._make(SAID(row)))
            if line is not None:
                self._beside.update(line)


def _row(origin: Origin, names: Mapping[str, str]) -> Row:
    """One row of the dataset."""
    decided, chain = origin.decided, origin.chain
    first, last = chain[0], chain[-1]
    written = chain if origin.student is None else [origin.student, *chain]
    answer = {} if last.answer is None else orjson.loads(last.answer)
    said = [each for version in chain for each in origin.verdicts.get(version.id, ())] if origin.verdicts else []
    return {
        "key": decided.key,
        "question": decided.question,
        "context": decided.context,
        "choices": decided.choices,
        "domain": decided.domain,
        "source": decided.source,
        "steps": last.steps,
        "answer": answer.get("value"),
        "answer_kind": answer.get("kind"),
        "decision": DECISIONS[decided.kind],
        "reason": decided.reason,
        "certified": decided.certified,
        "authors": list(dict.fromkeys([AUTHORS[each.author] for each in written])),
        "round": decided.round,
        "risk": first.risk,
        "verdicts": _said(said, names) if said else [],
        "teacher_model": first.teacher_model,
        "prompt_hash": first.prompt_hash,
        "parents": [_version(each) for each in written[:-1]],
    }  # fmt: skip


def _beside(origin: Origin, others: Sequence[Other]) -> bytes:
    """What a form may write of other rationales, as one text."""
    said = [each for version, _ in others for each in origin.verdicts.get(version.id, ())]
    texts = [(*each.steps, each.stated, each.answer, each.teacher_model) for each, _ in others]
    return orjson.dumps([texts, [each.steps for each in said], [whence for _, whence in others]])


def _said(verdicts: Iterable[Verdict], names: Mapping[str, str]) -> list[Row]:
    """What was said, oldest first."""
    return [_shown(each, names) for each in sorted(verdicts, key=lambda each: (each.updated_at, each.annotation))]


def _shown(verdict: Verdict, names: Mapping[str, str]) -> Row:
    """A verdict without the person."""
    return {
        "verdict": None if verdict.kind is None else verdict.kind.value,
        "reviewer": names[verdict.reviewer],
        "simulated": verdict.simulated,
        "marks": dict(sorted(verdict.marks.items())),
        "reasons": list(verdict.reasons),
        "seconds": round(verdict.seconds, 3),
    }


def _version(version: Version) -> Row:
    return {"author": AUTHORS[version.author], "steps": version.steps, "stated": version.stated}
