"""The page in a real Chromium on the real Label Studio, by a reviewer who keeps to the keyboard where the page does."""

import json
import re
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
from selenium.webdriver.common.keys import Keys

from benchmarks.continuing import continue_keys, delete_keys, edit_keys
from connectors.label_studio import LabelStudioBoard
from connectors.studio_server import Studio
from loop.answer import AnswerKind, parse_answer
from loop.config import TaskConfig
from loop.records import Author, Flag, Item, Rationale, ReviewTask, Split, Verdict, VerdictKind
from review.page import review_page
from review.task import Details, board_task
from review.verdict import interpret
from tests.browser import DRIVER, GUIDELINES, Reviewer
from tests.tiny import tiny_project

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(not DRIVER.exists(), reason="no Chromium here; `make test-browser` installs it"),
]

ROOT = Path(__file__).resolve().parents[1]
HOSTILE = [
    "<script>window.pwned = 1; document.title = 'pwned'</script>",
    '<img src=x onerror="window.pwned = 2">',
    "<svg/onload=window.pwned=3>",
    "</textarea><script>window.pwned = 4</script>",
    "[click](javascript:window.pwned=5) javascript:window.pwned=6",
    "$uid ${7*7} {{7*7}} &lt;b&gt; \" ' `",
    "\\frac{1}{2} $$\\sum_{i=0}^n i^2$$ 🐘🏳️‍🌈",
    "\u202etxet \u05e9\u05dc\u05d5\u05dd \u0645\u0631\u062d\u0628\u0627 \u0628\u0627\u0644\u0639\u0627\u0644\u0645",
    "x" * 3000,
    "https://" + "a" * 500 + ".example/",
]
TASKS = {
    AnswerKind.NUMBER: TaskConfig(answer=AnswerKind.NUMBER),
    AnswerKind.TEXT: TaskConfig(answer=AnswerKind.TEXT),
    AnswerKind.CHOICE: TaskConfig(answer=AnswerKind.CHOICE),
    AnswerKind.LABEL: TaskConfig(answer=AnswerKind.LABEL, labels={"yes": "it is so", "no": "it is not", "open": "?"}),
    AnswerKind.SPANS: TaskConfig(answer=AnswerKind.SPANS, labels={"person": "a human being", "place": "a town"}),
}
OVERFLOWING = """
return [...document.querySelectorAll('.rv, .rv *')].filter(each =>
  each.getBoundingClientRect().right > innerWidth + 1
  || (each.scrollWidth > each.clientWidth + 1 && /auto|scroll/.test(getComputedStyle(each).overflowX))
).map(each => each.className);
"""
CONTRAST = """
const shine = colour => {
  const [r, g, b] = colour.map(v => v / 255).map(v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
  return 0.2126 * r + 0.7152 * g + 0.0722 * b;
};
const paint = document.createElement('canvas').getContext('2d', {willReadFrequently: true});
const over = colours => {
  paint.clearRect(0, 0, 1, 1);
  for (const colour of colours) { paint.fillStyle = colour; paint.fillRect(0, 0, 1, 1); }
  return [...paint.getImageData(0, 0, 1, 1).data].slice(0, 3);
};
const behind = each => {
  const colours = [];
  for (; each; each = each.parentElement) colours.unshift(getComputedStyle(each).backgroundColor);
  return over(['white', ...colours]);
};
return Math.min(...[...document.querySelectorAll('.rv *')]
  .filter(each => each.offsetHeight && [...each.childNodes].some(node => node.nodeType === 3 && node.data.trim()))
  .map(each => {
    const [light, dark] = [shine(over([getComputedStyle(each).color])), shine(behind(each))].sort((a, b) => b - a);
    return (light + 0.05) / (dark + 0.05);
  }));
"""


@pytest.fixture(scope="module")
def reviewer(studio: Studio) -> Iterator[Reviewer]:
    """A reviewer who has logged in."""
    with closing(Reviewer(studio)) as made:
        made.log_in()
        yield made


def an_item(kind: AnswerKind, question: str = "What is 2 + 3 ?", context: str = "") -> Item:
    choices = ["$4", "$5", "<b>$6</b>"] if kind is AnswerKind.CHOICE else []
    return Item(key="i", question=question, context=context, choices=choices, split=Split.POOL, text_hash="")


@dataclass(frozen=True)
class Sent:
    """One rationale on a board of its own."""

    board: LabelStudioBoard
    task: TaskConfig
    item: Item
    rationale: Rationale

    @property
    def address(self) -> str:
        return self.board.address()

    def verdict(self) -> Verdict:
        """The one verdict, as the loop reads it."""
        (raw,) = self.board.changed(None)
        return interpret(raw, self.board.name, self.rationale, self.item, self.task)


@pytest.fixture
def send(studio: Studio) -> Iterator[Callable[..., Sent]]:
    """Puts rationales on boards, which are closed in the end."""
    with ExitStack() as stack:

        def sent(title: str, task: TaskConfig, item: Item, stated: str, steps: list[str], *flags: Flag) -> Sent:
            board = LabelStudioBoard(studio.url, studio.token, title=title, page=review_page(task))
            answer = parse_answer(stated, task.answer, choices=item.choices, labels=tuple(task.labels))
            rationale = Rationale(
                item_key=item.key, round_id=1, author=Author.TEACHER, steps=steps, stated=stated,
                answer=None if answer is None else answer.canonical,
            )  # fmt: skip
            review = ReviewTask(rationale_id=1, round_id=1, uid="u", reason="risk")
            details = Details(flags=flags, student_steps=tuple(steps), student_answer=rationale.answer)
            stack.enter_context(closing(board)).put([board_task(review, rationale, item, details, task)])
            return Sent(board, task, item, rationale)

        yield sent


Send = Callable[..., Sent]


def a_doubt(evidence: str, step: int | None) -> Flag:
    return Flag(rationale_id=1, check_name="arithmetic", step=step, evidence=evidence, weight=0.9)


def typed(reviewer: Reviewer, box: str, text: str) -> None:
    """Replace what stands in a text box, reached by Tab."""
    reviewer.tab_to(box)
    reviewer.hold(Keys.CONTROL, key="a")
    reviewer.press(text, Keys.TAB)


def test_guidelines_come_first_and_nothing_is_chosen(send: Send, reviewer: Reviewer) -> None:
    sent = send("guided", TASKS[AnswerKind.NUMBER], an_item(AnswerKind.NUMBER), "5", ["2 + 3 = 5"])
    reviewer.driver.get(sent.address)
    reviewer.until_shown([GUIDELINES])
    reviewer.until(lambda: "Guidelines, version" in reviewer.text(GUIDELINES))  # it fades in
    reviewer.open(sent.address)
    assert reviewer.script("return document.querySelectorAll('.rv input:checked').length") == 0
    assert not reviewer.shows("#rv-edit")
    assert not reviewer.shows("#rv-reject")


def test_a_page_opens_at_the_first_doubted_step(send: Send, reviewer: Reviewer) -> None:
    steps = [f"The {number}. thing is that {number} + 1 = {number + 1}, " + "and so on, " * 20 for number in range(14)]
    flags = [a_doubt("this is the evidence", 9), a_doubt("a later doubt", 11), a_doubt("a doubt about all", None)]
    sent = send("long", TASKS[AnswerKind.NUMBER], an_item(AnswerKind.NUMBER), "5", steps, *flags)
    reviewer.open(sent.address)
    boxes = "return ['#rv-steps', '#rv-step-9', '#rv-verdict'].map(each => {const box = document.querySelector(each)"
    frame, step, verdict = reviewer.script(f"{boxes}.getBoundingClientRect(); return [box.top, box.bottom]}})")
    assert frame[0] <= step[0] < step[1] <= frame[1]
    assert verdict[1] < 768, "the verdict is on the screen whatever the length of the rationale"
    assert "this is the evidence" in reviewer.text("#rv-step-9")
    assert not reviewer.shows("#rv-step-0 .rv-doubt")
    assert "The 13. thing" in reviewer.text("#rv-step-11"), "the last block holds the tail"


def test_empty_blocks_take_no_room_and_blank_lines_are_not_empty_blocks(send: Send, reviewer: Reviewer) -> None:
    item = an_item(AnswerKind.NUMBER, context="first paragraph\n\nsecond paragraph")
    sent = send("blank", TASKS[AnswerKind.NUMBER], item, "5", ["2 + 3 = 5", "so\n\nit is 5"])
    reviewer.open(sent.address)
    assert "second paragraph" in reviewer.text(".rv-left")
    assert [reviewer.shows(f"#rv-step-{place}") for place in range(3)] == [True, True, False]
    assert not reviewer.shows(".rv-doubt")


@pytest.mark.parametrize(("kind", "stated", "keys", "answer"), [
    (AnswerKind.NUMBER, "$4", "$1,005", "1005"),
    (AnswerKind.TEXT, "four", "five é", "five é"),
    (AnswerKind.CHOICE, "(A) $4", "b", "B"),
    (AnswerKind.LABEL, "no", "c", "open"),
])  # fmt: skip
def test_answer_and_steps_are_corrected_by_keyboard_alone(
    send: Send, reviewer: Reviewer, kind: AnswerKind, stated: str, keys: str, answer: str
) -> None:
    steps = ["2 + 3 = 4 <b>", "So it is $4."]
    sent = send(f"keys {kind}", TASKS[kind], an_item(kind), stated, steps, a_doubt("2 + 3 is 5", 0))
    reviewer.open(sent.address)
    reviewer.press("1")
    reviewer.hold(Keys.SHIFT, key="2")
    reviewer.press("e")
    if kind in (AnswerKind.CHOICE, AnswerKind.LABEL):
        reviewer.hold(Keys.SHIFT, key=keys)
    else:
        typed(reviewer, "answer", keys)
    typed(reviewer, "rationale", "1. 2 + 3 = 5 <i>\n2. So it is $5.")
    reviewer.submit()
    verdict = sent.verdict()
    assert verdict.kind is VerdictKind.EDIT
    assert verdict.steps == ["2 + 3 = 5 <i>", "So it is $5."]
    assert json.loads(verdict.answer or "{}")["value"] == answer
    assert verdict.marks == {"0": "wrong", "1": "unsupported"}


def test_spans_are_corrected_on_the_text(send: Send, reviewer: Reviewer) -> None:
    item = an_item(AnswerKind.SPANS, "Ada 🐘 Lovelace was born in London.\r\nShe met Babbage.")
    at = item.question.index("Babbage")
    steps = ["Babbage is a person."]
    sent = send("spans", TASKS[AnswerKind.SPANS], item, f"{at}-{at + 7}:person", steps)
    reviewer.open(sent.address)
    reviewer.hold(Keys.SHIFT, key="b")
    reviewer.draw("#rv-passage .lsf-richtext", "London")
    reviewer.press("e")
    reviewer.submit()
    marks = json.loads(sent.verdict().answer or "{}")["value"].split(";")
    found = {(item.question[int(start) : int(end)], label) for start, end, label in map(parts, marks)}
    assert found == {("Babbage", "person"), ("London", "place")}


def test_an_accept_after_all_marks_were_taken_off_says_that_there_are_none(send: Send, reviewer: Reviewer) -> None:
    item = an_item(AnswerKind.SPANS, "She met Babbage.")
    for title, kind, keys in (("left", VerdictKind.ACCEPT, []), ("taken off", VerdictKind.EDIT, [Keys.BACKSPACE])):
        sent = send(title, TASKS[AnswerKind.SPANS], item, "8-15:person", ["Babbage is a person."])
        reviewer.open(sent.address)
        reviewer.click("#rv-passage .htx-highlight")
        reviewer.press(*keys, "a")
        reviewer.submit()
        verdict = sent.verdict()
        assert verdict.kind is kind
        assert json.loads(verdict.answer or '{"value": ""}')["value"] == ""


def parts(mark: str) -> tuple[str, str, str]:
    start, _, rest = mark.partition("-")
    end, _, label = rest.partition(":")
    return start, end, label


def test_keys_mark_steps_and_take_the_marks_off_again(send: Send, reviewer: Reviewer) -> None:
    steps = [f"step number {number}" for number in range(12)]
    sent = send("marks", TASKS[AnswerKind.NUMBER], an_item(AnswerKind.NUMBER), "5", steps)
    reviewer.open(sent.address)
    reviewer.press("1", "2", "0", "-", "=", "1")
    reviewer.hold(Keys.CONTROL, Keys.SHIFT, key="3")
    reviewer.hold(Keys.ALT, Keys.SHIFT, key="4")
    reviewer.press("r", "w", "q")
    reviewer.submit()
    verdict = sent.verdict()
    assert verdict.kind is VerdictKind.REJECT
    assert verdict.reasons == ["wrong answer", "bad question"]
    assert verdict.marks == {
        "1": "wrong", "2": "hallucinated", "3": "redundant", "9": "wrong", "10": "wrong", "11": "wrong"
    }  # fmt: skip


@pytest.mark.parametrize("kind", list(AnswerKind))
def test_hostile_text_runs_nothing_and_breaks_nothing(send: Send, reviewer: Reviewer, kind: AnswerKind) -> None:
    labels = dict.fromkeys(HOSTILE[:3], HOSTILE[3]) if kind in (AnswerKind.LABEL, AnswerKind.SPANS) else {}
    item = an_item(kind, "\n".join(HOSTILE), "word " * 1000 + " ".join(HOSTILE))
    if kind is AnswerKind.CHOICE:
        item.choices = HOSTILE
    stated = {AnswerKind.CHOICE: "B", AnswerKind.SPANS: f"3-20:{HOSTILE[1]}"}.get(kind, HOSTILE[1])
    flags = [a_doubt(text, place) for place, text in enumerate([*HOSTILE])] + [a_doubt(HOSTILE[0] + HOSTILE[8], None)]
    sent = send(f"hostile {kind}", TaskConfig(answer=kind, labels=labels), item, stated, HOSTILE, *flags)
    reviewer.driver.get(sent.address)
    reviewer.until_shown([GUIDELINES])
    reviewer.open(sent.address)
    for key, part in (("r", "#rv-reject"), ("e", "#rv-edit")):
        reviewer.press(key)
        reviewer.until_shown([part])
        assert reviewer.script(OVERFLOWING) == []
        assert reviewer.script("return document.documentElement.scrollWidth") == 1366
    assert reviewer.script("return window.pwned ?? null") is None
    assert reviewer.script("return document.title") == "Label Studio"
    assert reviewer.script("return document.querySelectorAll('.rv script, .rv img, .rv svg[onload]').length") == 0
    assert HOSTILE[0] in reviewer.text("#rv-step-0")


def test_text_on_the_page_can_be_told_from_its_background(send: Send, reviewer: Reviewer) -> None:
    flags = [a_doubt("2 + 3 is 5", 0), a_doubt("a doubt about all of it", None)]
    item = an_item(AnswerKind.CHOICE)
    sent = send("contrast", TASKS[AnswerKind.CHOICE], item, "(A) $4", ["2 + 3 = 4", "So it is 4."], *flags)
    reviewer.open(sent.address)
    reviewer.press("1", "e")
    reviewer.until_shown(["#rv-edit", "#rv-step-0 .lsf-labels"])
    assert reviewer.script(CONTRAST) >= 4.5


def preceptor(*words: str, config: Path) -> str:
    """Run the command as a user would; what it said and its exit code."""
    command = [sys.executable, "-c", "from connectors.cli import main; main()", *words, "--config", str(config)]
    done = subprocess.run(command, cwd=ROOT, check=False, capture_output=True, text=True, timeout=600)
    return f"{done.stdout}{done.stderr}\nexit {done.returncode}"


def test_the_practice_set_says_how_a_reviewer_did(
    studio: Studio, reviewer: Reviewer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LABEL_STUDIO_API_KEY", studio.token)
    config = tmp_path / "config.toml"
    config.write_text(f'[review]\nurl = "{studio.url}"\n', encoding="utf-8")
    said = preceptor("review", "practice", config=config)
    assert "nobody has practised yet" in said
    reviewer.open(address_in(said))
    reviewer.press("a")
    reviewer.submit()
    assert "1 of 1 as expected" in preceptor("review", "practice", config=config)


def address_in(said: str) -> str:
    found = re.search(r"http://[^\s;,]+", said)
    assert found is not None, said
    return found[0]


def test_a_campaign_goes_on_with_exactly_what_a_reviewer_typed(
    studio: Studio, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LABEL_STUDIO_API_KEY", studio.token)
    config = a_campaign(tmp_path, studio)
    waiting = preceptor("run", config=config)
    assert waiting.endswith("exit 3"), waiting
    with closing(Reviewer(studio)) as reviewer:
        reviewer.log_in()
        reviewer.open(address_in(waiting))
        done = review_six(reviewer)
        change(reviewer, studio, address_in(waiting), done["changed"])
    assert preceptor("run", config=config).endswith("exit 0")
    preceptor("export", str(tmp_path / "export"), config=config)
    lines = (tmp_path / "export" / "examples.jsonl").read_text(encoding="utf-8").splitlines()
    trained = {row["question"]: row for row in map(json.loads, lines)}
    assert set(trained) == {done["edit"], done["accept"], done["accept too"]}
    assert trained[done["edit"]]["steps"] == ["First <b>I</b> add: 1 + 10 = 11.", "So it is 11 é."]
    assert trained[done["edit"]]["answer"] == "11"
    with sqlite3.connect(tmp_path / "preceptor.db") as database:
        assert database.execute("select examples from checkpoint where round_id is not null").fetchone() == (3,)
        marks = [json.loads(row[0]) for row in database.execute("select marks from verdict where kind = 'EDIT'")]
    assert marks == [{"0": "wrong"}]


def a_campaign(folder: Path, studio: Studio) -> Path:
    """A project whose first round sends all its six rationales to people; one may stay without a verdict."""
    config = tiny_project(folder, rounds=1, board="label_studio")
    text = config.read_text(encoding="utf-8").split("[simulated_reviewer]")[0]
    review = f'[review]\nurl = "{studio.url}"\nquorum = 0.8\n'
    config.write_text(text.replace("[review]\n", review).replace("audit_share = 0.2", "audit_share = 1.0"))
    for split in ("pool", "holdout"):
        assert preceptor("ingest", str(folder / f"{split}.jsonl"), "--split", split, config=config).endswith("exit 0")
    return config


def review_six(reviewer: Reviewer) -> dict[str, str]:
    """Accept (later changed), edit with a span, reject, skip, accept, accept; the questions."""
    done = {"changed": question(reviewer)}
    reviewer.hold(Keys.CONTROL, key=Keys.ENTER)
    reviewer.until_shown([".ant-modal-confirm-body"])
    assert "Pick accept, edit, continue or reject" in reviewer.text(".ant-modal-confirm-body")
    reviewer.press(Keys.ESCAPE)
    reviewer.until_gone(".ant-modal-confirm-body")
    reviewer.press("a")
    reviewer.submit()

    done["edit"] = question(reviewer, but=done["changed"])
    reviewer.press("1")
    reviewer.click("#rv-step-0 .lsf-label")
    reviewer.draw("#rv-step-0 .rv-text", "=")
    reviewer.press("e")
    typed(reviewer, "answer", "11")
    typed(reviewer, "rationale", "1. First <b>I</b> add: 1 + 10 = 11.\n2. So it is 11 é.")
    reviewer.submit()

    done["reject"] = question(reviewer, but=done["edit"])
    reviewer.press("r", "c")
    reviewer.submit()
    done["skip"] = question(reviewer, but=done["reject"])
    reviewer.skip()
    done["accept"] = question(reviewer, but=done["skip"])
    reviewer.press("a")
    reviewer.submit()
    done["accept too"] = question(reviewer, but=done["accept"])
    reviewer.press("a")
    reviewer.submit()
    return done


def test_the_teacher_goes_on_from_a_step_that_a_reviewer_corrects_by_keys(
    studio: Studio, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LABEL_STUDIO_API_KEY", studio.token)
    config = continuing_campaign(tmp_path, studio)
    waiting = preceptor("run", config=config)
    assert waiting.endswith("exit 3"), waiting
    with closing(Reviewer(studio)) as reviewer:
        reviewer.log_in()
        reviewer.open(address_in(waiting))
        reviewer.press("t")
        reviewer.until_shown(["#rv-edit"])
        assert not reviewer.shows("#rv-answer"), "the answer is the teacher's to give"
        assert reviewer.script(OVERFLOWING) == []
        reviewer.tab_to("rationale")
        reviewer.press(*CORRECTING, Keys.TAB)
        reviewer.submit()
        preceptor("review", "pull", config=config)
        assert preceptor("run", config=config).endswith("exit 3")
        reviewer.open(address_in(waiting))
        assert reviewer.shows(".rv-settled")
        assert "Steps 1 to 2 are as corrected" in reviewer.text(".rv-settled")
        assert [reviewer.text(f"#rv-step-{place} .rv-text") for place in range(4)] == [*CORRECTED, *FOLLOWING, ""]
        assert "18" in reviewer.text(".rv-answer")
        reviewer.press("a")
        reviewer.submit()
    assert preceptor("run", config=config).endswith("exit 0")
    preceptor("export", str(tmp_path / "export"), config=config)
    (line,) = (tmp_path / "export" / "examples.jsonl").read_text(encoding="utf-8").splitlines()
    assert json.loads(line)["steps"] == [*CORRECTED, *FOLLOWING]
    assert json.loads(line)["authors"] == ["teacher", "human"]


NAMED = {
    "Tab": Keys.TAB, "Delete": Keys.DELETE, "Home": Keys.HOME, "End": Keys.END, "ArrowDown": Keys.ARROW_DOWN,
    "Ctrl": Keys.CONTROL, "Shift": Keys.SHIFT, "Enter": Keys.ENTER,
}  # fmt: skip
LONG = ["First I say much about it, " + "and so on, " * 30 + "so 1 + 1 = 2.", "2 + 1 = 4.", "4 + 1 = 5.", "So it is 5."]
RIGHT = [LONG[0], "2 + 1 = 3.", "3 + 1 = 4.", "So it is 4."]


@pytest.mark.parametrize(("keys", "kind", "steps"), [
    (continue_keys(1, RIGHT[1]), VerdictKind.CONTINUE, RIGHT[:2]),
    (continue_keys(0, "1 + 1 = 2."), VerdictKind.CONTINUE, ["1 + 1 = 2."]),
    (delete_keys(3), VerdictKind.CONTINUE, LONG[:3]),
    (edit_keys(RIGHT, 1, "4"), VerdictKind.EDIT, RIGHT),
])  # fmt: skip
def test_the_page_takes_exactly_the_keys_that_the_benchmark_counts(
    send: Send, reviewer: Reviewer, keys: list[str], kind: VerdictKind, steps: list[str]
) -> None:
    sent = send(
        f"counted {kind} {len(steps)} {len(keys)}", TASKS[AnswerKind.NUMBER], an_item(AnswerKind.NUMBER), "5", LONG
    )
    reviewer.open(sent.address)
    assert keys[-1] == "Ctrl+Enter"
    for key in keys[:-1]:
        *held, last = key.split("+") if len(key) > 1 else [key]
        last = NAMED.get(last, last)
        reviewer.hold(*(NAMED[each] for each in held), key=last)
    reviewer.submit()
    verdict = sent.verdict()
    assert verdict.kind is kind
    assert verdict.steps == steps
    assert kind is VerdictKind.CONTINUE or json.loads(verdict.answer or "{}")["value"] == "4"


CORRECTED = ["10 + 1 = 11 .", "11 + 2 = 13 ."]
FOLLOWING = ["13 + 5 = 18 ."]
CORRECTING = [Keys.ARROW_UP * 9, Keys.HOME, Keys.ARROW_DOWN, Keys.END, Keys.BACKSPACE * 4, "13 ."]
"""In the box: to the second of the lines, wherever the cursor was, and other figures at its end."""


def continuing_campaign(folder: Path, studio: Studio) -> Path:
    """A project of one question, which goes to people; the teacher errs in the second of its three steps."""
    config = tiny_project(folder, rounds=1, board="label_studio", sums=1)
    text = config.read_text(encoding="utf-8").split("[simulated_reviewer]")[0]
    text = text.replace("[review]\n", f'[review]\nurl = "{studio.url}"\n').replace(
        'name = "tiny"', 'name = "continued"'
    )
    config.write_text(text.replace("audit_share = 0.2", "audit_share = 1.0"), encoding="utf-8")
    said = {"key": "i0", "question": "What is 1 + 10 ?", "model": "tiny-teacher"}
    first = {**said, "steps": [CORRECTED[0], "11 + 2 = 14 .", "14 + 5 = 19 ."], "answer": "19"}
    then = {**said, "after": CORRECTED[1], "steps": FOLLOWING, "answer": "18"}
    (folder / "recorded.jsonl").write_text(f"{json.dumps(first)}\n{json.dumps(then)}\n", encoding="utf-8")
    for split in ("pool", "holdout"):
        assert preceptor("ingest", str(folder / f"{split}.jsonl"), "--split", split, config=config).endswith("exit 0")
    return config


def question(reviewer: Reviewer, but: str = "") -> str:
    """The question on the page, once it is another one."""
    shown = "return document.querySelector('.rv-left .lsf-richtext__line')?.textContent ?? ''"
    reviewer.until(lambda: reviewer.script(shown) not in ("", but))
    return str(reviewer.script(shown))


def change(reviewer: Reviewer, studio: Studio, address: str, asked: str) -> None:
    """Open the verdict on a question again and make a reject of it."""
    headers = {"Authorization": f"Token {studio.token}"}
    project = address.split("/projects/")[1].split("/", maxsplit=1)[0]
    listed = httpx.get(f"{studio.url}/api/tasks", params={"project": project}, headers=headers, trust_env=False)
    task = next(each["id"] for each in listed.json()["tasks"] if each["data"]["question"] == asked)
    reviewer.open(address.replace("labeling=1", f"task={task}"))
    reviewer.press("r", "o")
    reviewer.submit()
