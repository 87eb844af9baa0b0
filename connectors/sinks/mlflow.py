"""MLflow: a run in the experiment `preceptor`, on a server or in a file."""

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from connectors.sinks import Place, Take
from loop.errors import TrackerDown

EXPERIMENT = "preceptor"
QUIETLY = {"MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2"}
"""Nothing is reported to its makers, and a server that is down does not keep the campaign waiting."""


@contextmanager
def opened(place: Place) -> Iterator[tuple[str | None, Take]]:
    """The run on the server, or in `mlflow.db` of the run's folder (`connectors.sinks.Sink`); its id is MLflow's."""
    os.environ.update({name: value for name, value in QUIETLY.items() if name not in os.environ})
    from mlflow import MlflowClient  # noqa: PLC0415 - an extra
    from mlflow.exceptions import MlflowException  # noqa: PLC0415 - as above

    try:
        client = MlflowClient(tracking_uri=place.url or f"sqlite:///{place.folder / 'mlflow.db'}")
        number = place.known or _new_run(client, place.run)

        def take(step: int, figures: Mapping[str, float]) -> None:
            for name, value in figures.items():
                client.log_metric(number, name, value, step=step)

        yield number, take
    except MlflowException as error:
        raise TrackerDown(f"MLflow does not take the figures: {str(error).splitlines()[0][:200]}") from error


def _new_run(client: Any, run: str) -> str:
    """A run of that name in the experiment, which is made where it is missing."""
    experiment = client.get_experiment_by_name(EXPERIMENT)
    place = client.create_experiment(EXPERIMENT) if experiment is None else experiment.experiment_id
    number: str = client.create_run(place, run_name=run).info.run_id
    return number
