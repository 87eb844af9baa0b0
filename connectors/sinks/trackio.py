"""Trackio: a run in the project `preceptor`, on a server of one's own or in files."""

import contextlib
import io
import os
from collections.abc import Iterator
from contextlib import contextmanager

from connectors.sinks import Place, Take
from loop.errors import TrackerDown

PROJECT = "preceptor"
ELSEWHERE = ("TRACKIO_SPACE_ID", "TRACKIO_SERVER_URL")
"""Variables by which Trackio sends figures away without a word in the config."""


@contextmanager
def opened(place: Place) -> Iterator[tuple[str | None, Take]]:
    """The run of that name on the server, or in `trackio/` of the run's folder (`connectors.sinks.Sink`)."""
    os.environ.setdefault("TRACKIO_DIR", str(place.folder / "trackio"))
    import trackio  # noqa: PLC0415 - an extra

    try:
        with contextlib.redirect_stdout(io.StringIO()):  # it greets
            writer = trackio.init(
                PROJECT,
                place.run,
                server_url=place.url,
                resume="allow",
                embed=False,
                auto_log_gpu=False,
                auto_log_cpu=False,
            )
            yield None, lambda step, figures: writer.log(dict(figures), step=step)
            trackio.finish()
    except (OSError, ValueError) as error:
        raise TrackerDown(f"Trackio does not take the figures: {error}") from error
