"""The figures of each round go where the config says, once, as numbers alone. Trackers are tried where installed."""

import importlib.util
import json
import os
import re
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest

from connectors import campaign, simulate, tracking
from connectors.doctor import diagnose
from connectors.sinks import Place, Take
from connectors.sources import ingest
from connectors.wiring import Project
from loop.config import Config, TrackingConfig
from loop.errors import BadConfig, TrackerDown
from loop.ports import Progress, Silent
from loop.records import Split
from loop.store.database import Store
from tests.builders import RUN, a_campaign, a_round, a_store, queried, trained
from tests.tiny import tiny_project
from tests.trained import QUIET

TENSORBOARD = TrackingConfig(to="tensorboard")
ACCURACY = "student/accuracy"


class Notebook:
    """A sink that writes down what comes, and may be down; it stands where a tracker stands."""

    def __init__(self) -> None:
        self.down = False
        self.breaks_at = 0
        self.rounds: list[int] = []
        self.places: list[Place] = []

    @contextmanager
    def opened(self, place: Place) -> Iterator[tuple[str | None, Take]]:
        self.places.append(place)
        if self.down:
            raise TrackerDown("it does not answer")
        yield place.known or f"run {len(self.places)}", self._take

    def _take(self, step: int, _: Mapping[str, float]) -> None:
        if step == self.breaks_at:
            raise TrackerDown("it went away")
        self.rounds.append(step)


@pytest.fixture
def notebook(monkeypatch: pytest.MonkeyPatch) -> Notebook:
    found = Notebook()
    monkeypatch.setitem(tracking.SINKS, "tensorboard", found.opened)
    monkeypatch.setitem(sys.modules, "tensorboard", json)  # whatever is installed
    return found


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    """Two closed rounds."""
    opened = a_store(tmp_path)
    a_campaign(opened)
    yield opened
    opened.close()


def a_third_round(store: Store) -> None:
    trained(store, queried(store, a_round(store), ["q7"]), examples=5, right=8)


def sent(store: Store, folder: Path, config: TrackingConfig, progress: Progress = QUIET) -> None:
    tracking.catch_up(store, RUN, config, folder, progress)


def test_what_is_sent_are_numbers_and_names_of_our_own(store: Store) -> None:
    first, second = tracking.closed_rounds(store, RUN).values()
    assert first[ACCURACY] == 0.3
    assert second["gold"] == 1
    assert all(type(value) is float for found in (first, second) for value in found.values())
    assert all(re.fullmatch(r"[a-z0-9_/]+", name) for name in second)
    assert not [name for name in second if "domain" in name or "stage" in name]


def test_a_round_is_sent_once_and_the_tracker_is_told_what_it_calls_the_run(
    store: Store, tmp_path: Path, notebook: Notebook
) -> None:
    sent(store, tmp_path, TENSORBOARD)
    sent(store, tmp_path, TENSORBOARD)
    assert notebook.rounds == [1, 2]
    a_third_round(store)
    sent(store, tmp_path, TENSORBOARD)
    assert notebook.rounds == [1, 2, 3]
    assert [place.known for place in notebook.places] == [None, "run 1"]


class Heard(Silent):
    """What was told."""

    def __init__(self) -> None:
        self.told: list[str] = []

    def say(self, text: str) -> None:
        self.told.append(text)


def test_what_a_tracker_that_was_down_missed_is_sent_later(store: Store, tmp_path: Path, notebook: Notebook) -> None:
    notebook.down, heard = True, Heard()
    sent(store, tmp_path, TENSORBOARD, heard)
    assert not notebook.rounds
    assert heard.told == [
        "  tracking: it does not answer; tried again when the next round closes, or by the next `run`"
    ]
    notebook.down = False
    a_third_round(store)
    sent(store, tmp_path, TENSORBOARD)
    assert notebook.rounds == [1, 2, 3]


def test_a_tracker_that_goes_away_in_between_gets_the_rest_in_the_same_run(
    store: Store, tmp_path: Path, notebook: Notebook
) -> None:
    for breaks_at in (1, 2, 2, 0):
        notebook.breaks_at = breaks_at
        sent(store, tmp_path, TENSORBOARD)
    assert notebook.rounds == [1, 2]
    assert [place.known for place in notebook.places] == [None, "run 1", "run 1", "run 1"]


def test_nothing_is_sent_unless_the_config_says_so(store: Store, tmp_path: Path, notebook: Notebook) -> None:
    sent(store, tmp_path / "none", TrackingConfig())
    assert not notebook.places
    assert not (tmp_path / "none").exists()


def test_another_tracker_gets_all_rounds(
    store: Store, tmp_path: Path, notebook: Notebook, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(tracking.SINKS, "mlflow", notebook.opened)
    sent(store, tmp_path, TENSORBOARD)
    sent(store, tmp_path, TrackingConfig(to="mlflow", url="http://127.0.0.1:1"))
    assert notebook.rounds == [1, 2, 1, 2]


def a_tracked_project(folder: Path) -> Project:
    config = tiny_project(folder, rounds=1)
    config.write_text(config.read_text(encoding="utf-8") + '[tracking]\nto = "tensorboard"\n', encoding="utf-8")
    return Project(config, QUIET)


def test_doctor_says_where_figures_go_and_what_is_missing(
    tmp_path: Path, notebook: Notebook, monkeypatch: pytest.MonkeyPatch
) -> None:
    project = a_tracked_project(tmp_path)

    def told() -> tuple[bool, str]:
        (found,) = [each for each in diagnose(project.path, lambda: project) if each.part == "tracking"]
        return found.fine, found.text

    assert told() == (True, f"the figures of each round go to tensorboard, {project.folder}")
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    fine, text = told()
    assert not fine
    assert "preceptor[tensorboard]" in text


def test_a_campaign_sends_its_round_when_it_has_closed(tmp_path: Path, notebook: Notebook) -> None:
    project = a_tracked_project(tmp_path)
    for part in ("holdout", "pool"):
        ingested(project, part)
    assert campaign.run(project, rounds_wanted=1, wait=False).outcome is campaign.Outcome.FINISHED
    assert notebook.rounds == [1]
    assert notebook.places[0].folder == project.folder


def ingested(project: Project, part: str) -> None:
    settings = project.config
    ingest(
        [project.home / f"{part}.jsonl"],
        project.store,
        split=Split(part),
        pool=settings.pool,
        task=settings.task,
        progress=QUIET,
    )


def test_simulated_campaigns_are_sent_nowhere(tmp_path: Path) -> None:
    simulated = simulate._config_of(Config(tracking=TENSORBOARD), tmp_path, simulate.Cell("random", 0))
    assert simulated.tracking == TrackingConfig()


@pytest.mark.parametrize("name", ["tensorboard", "mlflow"])
def test_a_missing_package_is_told_before_anything_is_spent(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(BadConfig, match=rf"pip install \"preceptor\[{name}\]\""):
        tracking.check(TrackingConfig.model_validate({"to": name}))


def test_files_have_no_address() -> None:
    with pytest.raises(ValueError, match=r'url is for to = "mlflow", not'):
        TrackingConfig(to="tensorboard", url="http://127.0.0.1")


@pytest.mark.parametrize(
    "secret", ["https://token@mlflow.example.org", "http://a:b@127.0.0.1:5000", "http://h/?token=x"]
)
def test_an_address_with_a_secret_is_refused_before_it_is_stored(secret: str) -> None:
    with pytest.raises(ValueError, match="set MLFLOW_TRACKING_TOKEN"):
        TrackingConfig(to="mlflow", url=secret)
    assert TrackingConfig(to="mlflow", url="https://mlflow.example.org/sub").url


# ---- the trackers themselves -----------------------------------------------------------------------------------------


def needs(package: str) -> pytest.MarkDecorator:
    """Looked up without loading it: what is set before it is loaded is a part of the test."""
    missing = importlib.util.find_spec(package) is None
    return pytest.mark.skipif(missing, reason=f'needs pip install "preceptor[{package}]"')


def shown_in_tensorboard(folder: Path) -> Mapping[int, float]:
    reading = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    events = reading.EventAccumulator(str(folder / "tensorboard"))
    events.Reload()
    return {each.step: each.value for each in events.Scalars(ACCURACY)}


@needs("tensorboard")
def test_tensorboard_shows_the_rounds(store: Store, tmp_path: Path) -> None:
    sent(store, tmp_path, TENSORBOARD)
    assert shown_in_tensorboard(tmp_path) == pytest.approx({1: 0.3, 2: 0.6})
    a_third_round(store)
    sent(store, tmp_path, TENSORBOARD)
    assert shown_in_tensorboard(tmp_path) == pytest.approx({1: 0.3, 2: 0.6, 3: 0.8})


@needs("mlflow")
@pytest.mark.filterwarnings("ignore")  # MLflow's own
def test_mlflow_shows_the_rounds_in_one_run(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_DISABLE_TELEMETRY", raising=False)
    config = TrackingConfig(to="mlflow")
    sent(store, tmp_path, config)
    a_third_round(store)
    sent(store, tmp_path, config)
    client = pytest.importorskip("mlflow").MlflowClient(tracking_uri=f"sqlite:///{tmp_path / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("preceptor")
    (run,) = client.search_runs([experiment.experiment_id])
    assert run.info.run_name == RUN
    history = client.get_metric_history(run.info.run_id, ACCURACY)
    assert {each.step: each.value for each in history} == pytest.approx({1: 0.3, 2: 0.6, 3: 0.8})
    assert os.environ["MLFLOW_DISABLE_TELEMETRY"] == "true"


@needs("mlflow")
@pytest.mark.filterwarnings("ignore")  # MLflow's own
def test_an_mlflow_server_that_is_down_stops_nothing(store: Store, tmp_path: Path) -> None:
    heard = Heard()
    sent(store, tmp_path, TrackingConfig(to="mlflow", url="http://127.0.0.1:1"), heard)
    assert "MLflow does not take the figures" in heard.told[0]
    assert not (tmp_path / "tracked.json").exists()
