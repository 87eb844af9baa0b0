"""The rows of a dataset: what was decided with where it comes from, put right where it may not be written so."""

import hashlib
import re
from collections.abc import Mapping
from operator import itemgetter
from typing import Any

import orjson

from connectors.formats import Example, Row
from loop.records import Author, DecisionKind, Verdict
from loop.store.dataset import Origin, Version
from loop.store.versions import TEACHING, Content, Digest

UNWRITABLE = re.compile("[\\x00\\ud800-\\udfff]")
"""What UTF-8 cannot hold, and what ends a text in many programs."""
SAID = itemgetter(*Content._fields)
AUTHORS, DECISIONS = {each: each.value for each in Author}, {each: each.value for each in DecisionKind}
"""As rows name them; an enumeration takes its time to say its value."""


class Rows:
    """Makes the rows of an export; `names` are the reviewers' pseudonyms."""

    def __init__(self, names: Mapping[str, str], *, certified: bool) -> None:
        self._names, self._certified = names, certified
        self._addresses = [name.encode().lower() for name in names if "@" in name]

    def row(self, origin: Origin) -> Row:
        """The row as the store has it."""
        row = _row(origin, self._names)
        if self._certified and row["decision"] == DecisionKind.SILVER.value:
            row["certified"] = True
        return row

    def example(self, row: Row, origin: Origin) -> tuple[Example, bool]:
        """The row, ready to be written, and whether something in it had to be replaced."""
        try:
            line = orjson.dumps(row, option=orjson.OPT_APPEND_NEWLINE)
            beside = orjson.dumps([each.steps for each in origin.rejected]) if origin.rejected else b""
            fine = self._may_be_written(line) and self._may_be_written(beside)
        except orjson.JSONEncodeError:
            fine = False
        if fine:
            return Example(row, origin, self._names, line), False
        return _mended(Example(row, origin, self._names, b"")), True

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
        "verdicts": [
            _shown(each, names) for each in sorted(said, key=lambda each: (each.updated_at, each.annotation))
        ],
        "teacher_model": first.teacher_model,
        "prompt_hash": first.prompt_hash,
        "parents": [_version(each) for each in written[:-1]],
    }  # fmt: skip


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


def _mended(example: Example) -> Example:
    """An example without what may not or cannot be written; the key of a row with such a key changes too."""
    addresses = {name: shown for name, shown in example.names.items() if "@" in name}
    named = re.compile("|".join(map(re.escape, addresses)), re.IGNORECASE) if addresses else None
    lower = {name.lower(): shown for name, shown in addresses.items()}

    def mend(value: Any) -> Any:
        if isinstance(value, str):
            text = UNWRITABLE.sub("\ufffd", value)
            return named.sub(lambda found: lower[found[0].lower()], text) if named else text
        if isinstance(value, list):
            return [mend(each) for each in value]
        if isinstance(value, dict):
            return {name: mend(each) for name, each in value.items()}
        return value

    def version(each: Version) -> Version:
        return each._replace(steps=mend(each.steps), stated=mend(each.stated))

    origin = example.origin
    mended = origin._replace(
        chain=[*map(version, origin.chain)], rejected=[*map(version, origin.rejected)]
    )  # the student's own stands in the row alone
    row = mend(example.row)
    return Example(row, mended, example.names, orjson.dumps(row, option=orjson.OPT_APPEND_NEWLINE))
