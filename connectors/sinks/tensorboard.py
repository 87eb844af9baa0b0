"""TensorBoard: event files in the run's folder."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from connectors.sinks import Place, Take
from loop.errors import TrackerDown


@contextmanager
def opened(place: Place) -> Iterator[tuple[str | None, Take]]:
    """Event files in `tensorboard/` of the run's folder (`connectors.sinks.Sink`); there is no server to name."""
    from torch.utils.tensorboard import SummaryWriter  # noqa: PLC0415 - an extra

    try:
        with SummaryWriter(str(place.folder / "tensorboard")) as writer:

            def take(step: int, figures: Mapping[str, float]) -> None:
                for name, value in figures.items():
                    writer.add_scalar(name, value, step)
                writer.flush()

            yield None, take
    except OSError as error:
        raise TrackerDown(f"{place.folder / 'tensorboard'}: cannot be written: {error}") from error
