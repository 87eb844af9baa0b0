"""Who may ask a server: anybody on loopback, elsewhere only who shows a token."""

import ipaddress
import os
import re

from loop.errors import BadConfig

HOST = re.compile(r"(\[[^\]]*\]|[^:]*)(:\d+)?")
"""A name or an address, and a port."""


def token_for(host: str, token_env: str, *, guarded: bool = False) -> str | None:
    """The token that is asked for, if the variable is set. `guarded`: people have to log in anyway.

    Raises:
        BadConfig: the address is not loopback, and there is none.
    """
    token = os.environ.get(token_env) or None
    if token is None and not guarded and not is_loopback(host):
        raise BadConfig(
            f"--host {host}: anybody who reaches it could ask; put a long random word into {token_env} "
            f"(`export {token_env}=$(openssl rand -hex 16)`), or stay on 127.0.0.1"
        )
    return token


def names_loopback(host: str) -> bool:
    """Whether the `Host` of a request names this machine, which a web page that had its own name rebound does not."""
    named = HOST.fullmatch(host)
    return named is not None and is_loopback(named[1])


def is_loopback(host: str) -> bool:
    """Whether a name or an address stands for this machine alone."""
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host == "localhost"
