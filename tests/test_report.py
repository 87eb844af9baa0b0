"""The figures of a run and the page that shows them."""

import base64
import hashlib
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

from connectors import views
from connectors.report_page import page, summary, write_report
from loop.config import Config, SimulatedReviewerConfig, TeacherConfig
from loop.errors import PreceptorError
from loop.records import Part, Prediction, VerdictKind
from loop.report import accuracy, pseudonyms, reviewer_figures, risk_bins
from loop.store import items, reading
from loop.store.database import Store
from tests.builders import RUN, a_campaign, a_round, a_store, an_item


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return a_store(tmp_path)


class Elements(HTMLParser):
    """Names and attributes of all elements, and whether they close."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[tuple[str, dict[str, str | None]]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append((tag, dict(attrs)))


def elements(text: str) -> list[tuple[str, dict[str, str | None]]]:
    parser = Elements()
    parser.feed(text)
    return parser.seen


def words(text: str) -> str:
    return " ".join(re.sub(r"<style>.*?</style>|<[^>]*>", " ", text, flags=re.DOTALL).split())


def test_the_page_holds_every_figure_with_its_n(store: Store) -> None:
    a_campaign(store)
    text = words(page(store, RUN, Config()))
    assert "60.0 % test accuracy after round 2, 31.3 to 83.2 %, n = 10; 30.0 % after round 1" in text
    assert "n = 10 test items at each of 2 rounds" in text
    assert "n = 6 decisions" in text
    assert "n = 4 flags" in text
    assert "n = 4 reviewed rationales" in text
    assert "$0.0060 of $1 spent" in text
    assert "reviewer-1 simulated 4 0 2 0 2 2.0" in text


def test_the_page_stands_by_itself(store: Store) -> None:
    a_campaign(store)
    text = page(store, RUN, Config())
    seen = elements(text)
    assert {name for name, _ in seen}.isdisjoint({"script", "link", "img", "iframe", "object", "embed"})
    assert sum("chart" in (attributes.get("class") or "").split() for _, attributes in seen) == 7
    assert not re.search(r"url\((?!#)|@import|@font-face", text)
    for name, attributes in seen:
        for attribute in ("src", "href", "xlink:href"):
            assert (attributes.get(attribute) or "#").startswith("#"), name


def test_only_its_own_style_may_apply_and_no_id_is_used_twice(store: Store) -> None:
    a_campaign(store)
    text = page(store, RUN, Config())
    (style,) = re.findall(r"<style>(.*?)</style>", text, flags=re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    assert f"default-src 'none'; style-src 'sha256-{digest}'\"" in text
    ids = [attributes["id"] for _, attributes in elements(text) if "id" in attributes]
    assert len(ids) == len(set(ids)) > 6


def test_the_page_is_small_enough_to_be_sent_around(store: Store) -> None:
    a_campaign(store)
    items.add(store, [an_item(f"more{number}", domain=f"domain {number}") for number in range(3000)])
    assert len(page(store, RUN, Config()).encode()) < 500_000


def test_text_of_items_is_escaped(store: Store) -> None:
    a_campaign(store)
    text = page(store, RUN, Config())
    assert "sums &amp; &lt;b&gt;parts&lt;/b&gt;" in text
    assert "<b>parts" not in text
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in text
    assert "<script" not in text


def test_the_page_says_what_is_simulated_and_recorded(store: Store, tmp_path: Path) -> None:
    a_campaign(store, simulated=True)
    config = Config(teacher=TeacherConfig(recorded=tmp_path / "r.jsonl"), simulated_reviewer=SimulatedReviewerConfig())
    text = words(page(store, RUN, config))
    assert "4 of 4 verdicts are by a simulated reviewer" in text
    assert "replies come from a recording" in text
    assert "spent by reviewers (simulated)" in text


def test_people_s_work_is_not_called_simulated(store: Store) -> None:
    a_campaign(store, simulated=False)
    text = words(page(store, RUN, Config()))
    assert "Nothing on this page is simulated." in text
    assert text.count("simulated") == 1


def test_no_person_and_no_gold_is_on_the_page(store: Store) -> None:
    a_campaign(store)
    text = page(store, RUN, Config())
    assert "ann@example.org" not in text
    assert "987654" not in text


@pytest.mark.parametrize("opened", [False, True])
def test_a_page_without_results_says_so(opened: bool, store: Store) -> None:
    if opened:
        a_round(store)
    text = words(page(store, RUN, Config()))
    assert "no student was tested yet" in text
    assert "Nothing was decided yet." in text
    assert ("No round was opened yet." in text) is not opened


def test_the_same_state_gives_the_same_page(store: Store, tmp_path: Path) -> None:
    a_campaign(store)
    for name in ("one.html", "two.html"):
        write_report(store, RUN, Config(), tmp_path / name)
    assert (tmp_path / "one.html").read_bytes() == (tmp_path / "two.html").read_bytes()


def test_a_page_that_cannot_be_written_is_named(store: Store, tmp_path: Path) -> None:
    with pytest.raises(PreceptorError, match=r"report\.html: cannot be written"):
        write_report(store, RUN, Config(), tmp_path / "missing" / "report.html")


def test_corrected_items_stand_side_by_side(store: Store) -> None:
    a_campaign(store)
    text = page(store, RUN, Config())
    assert "The last 2 items that reviewers corrected" in text
    assert "1 + <del>1</del> = <del>2</del>" in text
    assert "1 + <ins>2</ins> = <ins>3</ins>" in text


def test_the_summary_holds_the_figures_in_markdown(store: Store) -> None:
    a_campaign(store)
    text = summary(store, RUN, Config())
    assert text.startswith("## Run main: round 2, stage closed\n")
    assert "| student | 60.0 % (31.3 to 83.2, n = 10); 30.0 % after round 1 |" in text
    assert "| 2 | closed | 3 | 2 | 2 | 1 | 1 | 1 | 0 | 0.0030 | 1.0 | 60.0 % (31.3 to 83.2, n = 10) |" in text
    assert "| arithmetic | 4 | 100.0 % (51.0 to 100.0, n = 4) |" in text
    assert "| reviewer-1 (simulated) | 4 | 0 | 2 | 0 | 2 | 2.0 |" in text
    assert "> 4 of 4 verdicts are by a simulated reviewer" in text
    stopping = text.partition("### Whether to go on")[2]
    assert "- money: go on: " in stopping
    assert "\n- pool: " in stopping
    assert "### What was measured" not in text


def test_the_summary_says_what_was_measured_of_the_newest_student(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    a_campaign(store)
    monkeypatch.setattr(views, "evaluation_text", lambda student: ["F1 of <cold>: 0.5"] if student else [])
    text = summary(store, RUN, Config())
    assert "### What was measured of the student, after round 2\n\n- F1 of \\<cold\\>: 0.5\n" in text


def test_no_text_leaves_its_place_in_the_summary(store: Store) -> None:
    items.add(store, [an_item("q1", domain="a|b\n# <script>*x*</script> [l](http://e)")])
    text = summary(store, RUN, Config())
    assert r"| a\|b \# \<script\>\*x\*\</script\> \[l\](http://e) |" in text
    tables = [line for line in text.splitlines() if line.startswith("| a")]
    assert [len(re.findall(r"(?<!\\)\|", line)) for line in tables] == [7]


@pytest.mark.parametrize("opened", [False, True])
def test_a_summary_without_results_says_so(opened: bool, store: Store) -> None:
    if opened:
        a_round(store)
    text = summary(store, RUN, Config())
    assert "| student | not tested yet |" in text
    assert ("### Rounds" in text) is opened


def test_accuracy_carries_its_interval_and_n() -> None:
    rows = [Prediction(checkpoint_id=1, item_key=str(n), part=Part.TEST, correct=n < 3) for n in range(10)]
    found = accuracy(rows)
    assert found is not None
    assert (found.accuracy, found.n) == (0.3, 10)
    assert (found.low, found.high) == (pytest.approx(0.1078, abs=1e-3), pytest.approx(0.6032, abs=1e-3))
    assert accuracy([]) is None


def test_risk_is_set_against_what_reviewers_found(store: Store) -> None:
    a_campaign(store)
    verdicts = [verdict for _, verdict in reading.verdicts_of(store, RUN)]
    bins = risk_bins(reading.risks_of(store, RUN), verdicts)
    assert [(each.reviewed, each.wrong) for each in bins] == [(0, 0), (0, 0), (2, 2), (0, 0), (2, 2)]
    assert bins[4].expected == pytest.approx(0.9)


def test_people_and_simulated_reviewers_are_never_counted_together(store: Store) -> None:
    a_campaign(store)
    verdicts = [verdict for _, verdict in reading.verdicts_of(store, RUN)]
    verdicts[0].simulated = False
    found = reviewer_figures(verdicts, pseudonyms(["ann@example.org"]))
    assert [(each.name, each.simulated, sum(each.verdicts.values())) for each in found] == [
        ("reviewer-1", False, 1),
        ("reviewer-1", True, 3),
    ]
    assert found[0].verdicts == {VerdictKind.EDIT: 1}
