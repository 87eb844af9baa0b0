"""Removes an item from everywhere: the database, Label Studio, caches and logs; then looks whether anything is left.

What is to go is written to a file first, which is deleted last: called again after it was cut off, it does the rest.
Exports, checkpoints and files of the user's own are named, and never changed.
"""

import difflib
import json
import mmap
import stat
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from connectors import atomic, memory
from connectors.history import history
from connectors.holding import written_in
from connectors.wiring import Project
from loop.config import EndpointConfig
from loop.errors import BadConfig, BoardError, PreceptorError
from loop.records import Item, ReviewTask
from loop.redaction import bare
from loop.store import claims, counting, exported, forgetting, items, reading
from loop.store.texts import forms

WEIGHTS = (".safetensors", ".bin")
"""Files of numbers, in which no text is looked for."""


@dataclass(frozen=True)
class Plan:
    """What is known of an item, so that it can be removed, and looked for when it is gone."""

    key: str
    source: str
    rows: dict[str, int]
    texts: list[str]
    shared: list[str]
    replies: list[str]
    tasks: list[tuple[str, int, str, str]]
    """Run, slot, board and uid of what stands on a board."""
    exports: list[str]
    students: list[str]


@dataclass
class Found:
    """What was looked through, and where the item still is."""

    places: dict[str, int] = field(default_factory=dict)
    columns: int = 0
    files: int = 0
    size: int = 0

    def lines(self, plan: Plan) -> list[str]:
        """What there is to say."""
        looked = (
            f"looked for {len(plan.texts)} texts of the item in {self.columns} columns of the database and in "
            f"{self.files} files ({self.size / 2**20:.1f} MiB)"
        )
        if not plan.texts:
            return [f"{looked}: its texts are too short, or stand in other items too, to be told from others"]
        if not self.places:
            return [f"{looked}: nothing is left"]
        left = [f"  {place}: {number}" for place, number in self.places.items()]
        return [f"{looked}; still there:", *left, "delete these files or write them anew, and call this again"]


class Forgetting:
    """Forgets one item of a project, in all runs of its database."""

    def __init__(self, project: Project, key: str) -> None:
        """Find out what there is of the item, or what was left to do when this was cut off.

        Raises:
            PreceptorError: there is no such item, or an open round works on it.
        """
        self._project, self._store = project, project.store
        self._runs = project.home / project.config.run.folder
        self._file = self._runs / f"forget-{forgetting.digest(key)[:16]}.json"
        item = items.get(self._store, key)
        self.goes_on = item is None and self._file.exists()
        self.plan = self._read() if self.goes_on else self._look(key, item)
        self._refuse_open()

    def preview(self) -> list[str]:
        """What would go, a line a fact."""
        plan = self.plan
        rows = ", ".join(f"{number} {table}" for table, number in sorted(plan.rows.items()) if number)
        begun = "its rows are deleted already; what is left to do is done\n" if self.goes_on else ""
        lines = [f"{begun}rows of the database: {rows}", f"tasks on boards: {len(plan.tasks)}"]
        lines += [f"exports that hold it, yours to delete or to write anew: {', '.join(plan.exports) or 'none'}"]
        lines += [f"students that learned it, whose weights are not changed: {', '.join(plan.students) or 'none'}"]
        if plan.shared:
            lines.append(
                f"some of its texts stand in other items too, and stay there, e.g. in {', '.join(plan.shared[:10])}"
            )
        return [*lines, f"it came from {plan.source or 'elsewhere'}; files of yours are never changed"]

    def apply(self) -> Found:
        """Remove it and look what is left; without anything left, the plan is deleted too.

        Raises:
            PreceptorError: an open round works on it, a run is at work, or a board cannot be reached or is not known.
        """
        for other in counting.runs(self._store):
            if (who := claims.worker(self._store, other)) is not None:
                raise PreceptorError(f"run {other} is being worked on by {who}; wait for it, or end that process")
        with self._project.held():
            self._refuse_open()
            self._write()
            self._clear_boards()
            self._clear_caches()
            forgetting.remove(self._store, self.plan.key, self.plan.texts, taught=bool(self.plan.students))
        self._store.compact()
        found = self._search()
        if not found.places:
            self._file.unlink()
        return found

    def _look(self, key: str, item: Item | None) -> Plan:
        if item is None:
            raise PreceptorError(self._unknown(key))
        held = forgetting.held(self._store, item)
        names = counting.runs(self._store)
        return Plan(
            key=key,
            source=item.source,
            rows=dict(held.rows),
            texts=list(held.texts),
            shared=list(held.shared),
            replies=list(held.replies),
            tasks=[(self._run_of(each), each.slot, each.board, each.uid) for each in held.tasks if each.board],
            exports=[folder for run in names for folder in self._exports(run, item)],
            students=[
                f"{run}/{each['checkpoint']}"
                for run in names
                for each in history(self._store, run, key)["trained_in"]
                if each["as"] == "example"
            ],
        )

    def _unknown(self, key: str) -> str:
        when = forgetting.forgotten(self._store, [key]).get(key)
        if when is not None:
            return f"{key} was forgotten on {when:%Y-%m-%d}"
        near = difflib.get_close_matches(key, reading.all_keys(self._store), n=1)
        hint = f"did you mean {near[0]}?" if near else "`preceptor serve` finds items by their text"
        return f"{key}: no such item; {hint}"

    def _refuse_open(self) -> None:
        current = forgetting.open_round(self._store, self.plan.key, self.plan.texts)
        if current is not None:
            raise PreceptorError(
                f"round {current.number} of run {current.run} works on {self.plan.key} (stage {current.stage}); carry "
                "it to its end with `preceptor run`, then call this again"
            )

    def _run_of(self, task: ReviewTask) -> str:
        return task.uid.split("/", 1)[0]

    def _exports(self, run: str, item: Item) -> list[str]:
        """The datasets that may hold the item."""
        decided = [row for row in reading.decisions_of(self._store, run) if row.item_key == item.key]
        written = exported.of_run(self._store, run)
        return list(dict.fromkeys(each.folder for each in written if written_in(each, decided)))

    def _clear_boards(self) -> None:
        """Delete its tasks where they stand."""
        for run, slot in sorted({(run, slot) for run, slot, _, _ in self.plan.tasks}):
            board = Project(self._project.path, self._project.progress, run=run).board(slot)
            there = {uid: name for at, number, name, uid in self.plan.tasks if (at, number) == (run, slot)}
            if strange := sorted({name for name in there.values() if name != board.name}):
                raise PreceptorError(
                    f"tasks of {self.plan.key} stand on {', '.join(strange)}, and the config names {board.name}: put "
                    "review.board and review.url back for this call, or delete them there by hand"
                )
            board.forget(there.keys())
        try:
            self._project.holdout_board.forget({f"holdout/{self.plan.key}"})
        except (BadConfig, BoardError) as error:
            if self.plan.tasks:
                raise
            say = self._project.progress.say
            say(f"no review of it was sent; whether it was sent for a holdout was not looked at: {error}")

    def _clear_caches(self) -> None:
        """Take it out of remembered replies, the students' present answers, reports and the log."""
        config, plan = self._project.config, self.plan
        for asked, file in self._remembering():
            if file.exists():
                memory.forget(file, self._is_reply(asked))
        for file in self._runs.glob("*/student-answers/*.json"):
            known = json.loads(file.read_text(encoding="utf-8"))
            if known.pop(plan.key, None) is not None:
                atomic.write_text(file, json.dumps(known, ensure_ascii=False))
        for file in self._runs.glob("*/checkpoints/*/card.json"):
            _clear_card(file, plan.key)
        for file in self._runs.glob("*/report.html"):
            if _holds(file, plan.texts):
                file.unlink()
        if config.run.log is not None and (log := self._project.home / config.run.log).exists():
            lines = log.read_text(encoding="utf-8").split("\n")  # a text may hold what else ends a line
            kept = [line for line in lines if not _is_about(line, plan.key)]
            atomic.write_text(log.resolve(), "\n".join(kept), mode=stat.S_IMODE(log.stat().st_mode))

    def _search(self) -> Found:
        """Look for its texts, and in the tables for its key: in all of them, the database's files and the runs'."""
        plan = self.plan
        places, columns = forgetting.search(self._store, plan.texts, plan.key)
        found = Found({f"table {place}": number for place, number in places.items()}, columns)
        for file in self._files():
            found.files += 1
            found.size += file.stat().st_size
            if _holds(file, plan.texts):
                found.places[f"file {file}"] = 1
        return found

    def _files(self) -> Iterator[Path]:
        """The database's, the log, remembered replies, and all of the runs but weights and Label Studio's own data."""
        found = {*self._runs.rglob("*"), *(file for _, file in self._remembering())}
        if (database := self._store.file) is not None:
            found |= {database.with_name(database.name + end) for end in ("", "-wal", "-shm")}
            found |= {*database.parent.glob(f"{database.name}.at-*")}  # from before an upgrade
        if self._project.config.run.log is not None:
            found.add(self._project.home / self._project.config.run.log)
        apart = (self._project.studio_folder, self._file)
        for file in sorted(found):
            if file.is_file() and file.suffix not in WEIGHTS and not any(file.is_relative_to(each) for each in apart):
                yield file

    def _is_reply(self, asked: EndpointConfig) -> Callable[[str], bool]:
        """What tells whether a remembered reply is about the item; of what was hidden it holds placeholders."""
        plan, hides = self.plan, asked.redact
        whole = {bare(each, hides) if hides.on else each for each in plan.replies}

        def is_reply(text: str) -> bool:
            alike = bare(text, hides) if hides.on else text
            return alike in whole or any(each in text for each in plan.texts)

        return is_reply

    def _remembering(self) -> list[tuple[EndpointConfig, Path]]:
        """The endpoints whose replies are remembered, and the files."""
        config, home = self._project.config, self._project.home
        asked = (config.teacher, config.judge, *config.teacher.stronger)
        return [(each, home / each.replies) for each in asked if each.replies is not None]

    def _read(self) -> Plan:
        fields = json.loads(self._file.read_text(encoding="utf-8"))
        return Plan(**fields | {"tasks": [tuple(each) for each in fields["tasks"]]})

    def _write(self) -> None:
        self._runs.mkdir(parents=True, exist_ok=True)
        atomic.write_text(self._file, json.dumps(asdict(self.plan), ensure_ascii=False), mode=0o600)


def _clear_card(file: Path, key: str) -> None:
    """Take a key out of the lists of keys on a student's card."""
    card = json.loads(file.read_text(encoding="utf-8"))
    lists = [card[name] for name in forgetting.KEYED if key in card.get(name, ())]
    for keys in lists:
        keys.remove(key)
    if lists:
        atomic.write_text(file, json.dumps(card, indent=1))


def _is_about(line: str, key: str) -> bool:
    """Whether a line of the log names the item."""
    try:
        event = json.loads(line)
    except json.JSONDecodeError:
        return False
    return isinstance(event, dict) and event.get("item") == key


def _holds(file: Path, texts: Sequence[str]) -> bool:
    """Whether a file holds one of the texts, in whichever form."""
    if not file.exists() or file.stat().st_size == 0:
        return False
    wanted = [form.encode("utf-8", "surrogatepass") for text in texts for form in forms(text)]
    with file.open("rb") as opened, mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ) as content:
        return any(content.find(each) >= 0 for each in wanted)
