"""Brings reviewers into Label Studio: accounts through the server's invite link, and what to send to each person."""

import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import httpx
from label_studio_sdk import LabelStudio
from label_studio_sdk.core.api_error import ApiError

from loop.errors import BoardDown, BoardRefused

SIGN_UP = "/user/signup/"


@dataclass(frozen=True)
class Invitation:
    """What became of one address: a new account with its first password, or none because there is one already."""

    email: str
    password: str | None


class Invitations:
    """Speaks to the sign-up page of a Label Studio server, as a person with the invite link would."""

    def __init__(self, url: str, token: str) -> None:
        self._url = url.rstrip("/")
        self._token = token

    def link(self) -> str:
        """The server's invite link; whoever has it can make an account."""
        with self._client() as client:
            try:
                speaker = LabelStudio(base_url=self._url, api_key=self._token, httpx_client=client)
                return self._url + str(speaker.organizations.invites.get_invite_link().invite_url)
            except ApiError as error:
                raise BoardRefused(
                    f"Label Studio at {self._url} gives no invite link: {error.status_code}; the token that "
                    "review.token_env names must be that of a member"
                ) from error

    def invite(self, email: str) -> Invitation:
        """Make an account with a random first password, where there is none.

        Raises:
            BoardRefused: the server does not take the address.
        """
        password = secrets.token_urlsafe(12)
        answer = self._sign_up(self.link(), email, password)
        if answer.status_code == httpx.codes.FOUND:
            return Invitation(email, password)
        if "already exists" in answer.text:
            return Invitation(email, None)
        raise BoardRefused(f"Label Studio at {self._url} made no account for {email}: is that an e-mail address?")

    def is_open(self) -> bool:
        """Whether anybody who reaches the server can make an account without the link; found out with an empty form."""
        return self._sign_up(self._url + SIGN_UP, "", "").status_code != httpx.codes.FORBIDDEN

    def _sign_up(self, link: str, email: str, password: str) -> httpx.Response:
        with self._client() as client:
            client.get(link)
            form = {
                "email": email,
                "password": password,
                "allow_newsletters": "false",
                "how_find_us": "",
                "csrfmiddlewaretoken": client.cookies.get("csrftoken", ""),
            }
            return client.post(link, data=form, headers={"Referer": link})

    @contextmanager
    def _client(self) -> Iterator[httpx.Client]:
        try:
            with httpx.Client(base_url=self._url, trust_env=False, timeout=60.0) as client:
                yield client
        except httpx.HTTPError as error:
            raise BoardDown(
                f"Label Studio at {self._url} does not answer ({type(error).__name__}: {error}); start it with "
                "`preceptor review up` or mend review.url, then run again"
            ) from error
