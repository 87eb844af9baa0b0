"""Who may ask a server: anybody on loopback, elsewhere only who shows a token."""

import ipaddress
import os

from loop.errors import BadConfig


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


def is_loopback(host: str) -> bool:
    """Whether a name or an address stands for this machine alone."""
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host == "localhost"
