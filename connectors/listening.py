"""The address that a server answers at, taken before anything slow is done."""

import errno
import socket
from collections.abc import Iterator
from contextlib import contextmanager

from loop.errors import PreceptorError


@contextmanager
def listening(host: str, port: int) -> Iterator[tuple[socket.socket, str]]:
    """A socket that listens while the block lasts, and its address; port 0 is any free one.

    Raises:
        PreceptorError: the port is taken, or may not be had.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        listener = socket.create_server((host, port), family=family)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise PreceptorError(f"port {port} of {host} is taken; name another with --port") from error
        raise PreceptorError(f"cannot listen at port {port} of {host}: {error.strerror or error}") from error
    with listener:
        shown = f"[{host}]" if family == socket.AF_INET6 else host
        yield listener, f"http://{shown}:{listener.getsockname()[1]}"
