"""Who is let in to the pages of `preceptor serve`, as whom, and what a browser may do with what it gets.

On loopback, where nobody has an account and there is no token, anybody may look who reaches it by a name of loopback,
so that no web page can by a name of its own. Elsewhere, or once somebody has an account, people log in. A browser then
holds a random word in a cookie that no script reads and that comes along from no other site; the store holds its
digest. A token, for programs, lets its holder look and no more.
"""

import asyncio
import hashlib
import hmac
import secrets
import threading
from collections.abc import Awaitable, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from urllib.parse import parse_qs, unquote

from fastapi import Request
from fastapi.responses import RedirectResponse, Response
from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from connectors.access import names_loopback
from connectors.accounts import NAME, PAGE, TOKEN, Passwords, change_password, examine
from connectors.attempts import Attempts
from loop.records import Account, Deed, Role
from loop.store import accounts
from loop.store.database import Store, now

COOKIE = "preceptor"
"""The cookie of who is let in."""
REMEMBERED_SECONDS = 30 * 24 * 3600
"""How long a browser keeps that it knows the token."""
OPEN = ("/login", "/static/")
"""What is answered to who is not let in yet."""
PASSED_ON = ("x-forwarded-for", "x-real-ip", "forwarded", "via")
"""Headers of proxies, some of which call us by a name of loopback, whoever asked them."""
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
    "connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}
ONLY_HERE = (
    "Open it as http://127.0.0.1 or http://localhost on this machine. For others, and behind a proxy, people need "
    "accounts (`preceptor users add`) or a token."
)
LONGEST_BODY = 1 << 13
Fields = dict[str, str]
"""Of a form, the first of each name."""


@dataclass(frozen=True)
class Visitor:
    """Who looks. `form` is what a form of theirs has to hold; empty where they may send none."""

    name: str
    role: Role
    form: str = ""

    @property
    def has_password(self) -> bool:
        """Whether they have an account."""
        return bool(self.form) and self.name != TOKEN


@dataclass(frozen=True)
class Opened:
    """What the browser of somebody who was let in is to hold: for so many seconds a `word`, which nobody else has, and
    by what it is `known` as one in which the password was right; empty where there is none.
    """

    word: str
    seconds: float
    known: str = ""


class NotAllowed(Exception):
    """Who looks may not do this, or it cannot be seen that they want it."""


class Door:
    """Lets people in. `local`: whether the server listens on loopback alone; `hours`: how long a visit lasts."""

    def __init__(self, store: Store, token: str | None, *, local: bool, hours: float) -> None:
        self.hours = hours
        self._store, self._token, self._local = store, token, local
        self._cookie = "" if token is None else remembered(token)
        self._attempts, self._passwords, self._lock = Attempts(), Passwords(), threading.Lock()
        self.queue = ThreadPoolExecutor(1, "log-in")
        """Where attempts to log in wait for each other, so that they keep no thread from answering pages."""

    def asks(self) -> bool:
        """Whether somebody who comes has to say who they are."""
        return self._token is not None or not self._local or accounts.are_there(self._store)

    def by_token(self) -> bool:
        """Whether the token is asked for, and not a name and a password."""
        return self._token is not None and not accounts.are_there(self._store)

    def who(self, request: Request) -> Visitor | None:
        """Who sent the request, if that is known; where nobody is asked, anybody who came by a name of loopback."""
        word = request.cookies.get(COOKIE, "")
        if self._token is not None:
            bearer = f"Bearer {self._token}".encode()
            if hmac.compare_digest(request.headers.get("authorization", "").encode(), bearer):
                return Visitor(TOKEN, Role.VIEWER)
            if hmac.compare_digest(word.encode(), self._cookie.encode()):
                return Visitor(TOKEN, Role.VIEWER, form_of(word))
        account = accounts.visiting(self._store, digest(word), now()) if word else None
        if account is not None:
            return Visitor(account.name, account.role, form_of(word))
        return Visitor("", Role.VIEWER) if came_from_here(request) and not self.asks() else None

    def let_in(self, given: Mapping[str, str], address: str, word: str, known: str) -> Opened | None:
        """What the browser is to hold from now on; None where what is given is wrong.

        A visit that the browser was in, by its `word`, ends; its word is never used again. `known`: what it holds from
        when a password was right in it.

        Raises:
            TooOften: too many attempts failed.
        """
        name = given.get("name", "").strip().lower()
        if self.by_token():
            opened = self._tried("", address, "", lambda _: self._by_token(given))
        elif NAME.fullmatch(name):
            opened = self._tried(name, address, known, lambda account: self._by_password(account, name, given))
        else:
            opened = self._tried("", address, "", lambda account: self._by_password(account, "", given))
        if opened is not None:
            self.let_out(word)
        return opened

    def change_password(self, name: str, current: str, new: str) -> Opened | None:
        """Give an account of somebody who is logged in another password, which ends all its visits, and let them in
        anew; None where the current one is wrong.

        Raises:
            TooOften: too many attempts failed.
            PreceptorError: the new one is too short or too long, or the account was removed meanwhile.
        """

        def change(account: Account | None) -> Opened | None:
            if not self._passwords.fits(account, current):
                self._note(name, "users password", failed=True)
                return None
            change_password(self._store, name, new, by=name)
            return self._entered(accounts.get(self._store, name))

        examine(new)
        return self._tried(name, "", None, change)

    def _tried(
        self, name: str, address: str, known: str | None, attempt: Callable[[Account | None], Opened | None]
    ) -> Opened | None:
        """What comes of an attempt, unless too many failed. `known`: what the browser holds; None: it is logged in.

        One at a time: a hash takes 64 MiB, and guesses that come together are counted.
        """
        with self._lock:
            account = accounts.get(self._store, name)
            mine = known is None or (
                account is not None and hmac.compare_digest(known.encode(), known_by(account).encode())
            )
            self._attempts.begin(name, address, known=mine)
            opened = attempt(account)
            if opened is not None:
                self._attempts.succeeded(name, address, known=mine)
        return opened

    def _by_token(self, given: Mapping[str, str]) -> Opened | None:
        right = hmac.compare_digest(given.get("token", "").encode(), (self._token or "").encode())
        self._note(TOKEN, "log in", failed=not right)
        return Opened(self._cookie, REMEMBERED_SECONDS) if right else None

    def _by_password(self, account: Account | None, name: str, given: Mapping[str, str]) -> Opened | None:
        right = self._passwords.fits(account, given.get("password", ""))
        opened = self._entered(account) if right else None
        # a name that nobody has may be a password typed in the wrong place, so it is not kept
        self._note("" if account is None else name, "log in", failed=opened is None)
        return opened

    def _entered(self, account: Account | None) -> Opened | None:
        """A new visit, unless the account was removed or got another password meanwhile."""
        word = secrets.token_urlsafe(32)
        if account is None or not accounts.let_in(self._store, account, digest(word), self.hours):
            return None
        return Opened(word, self.hours * 3600, known_by(account))

    def let_out(self, word: str, name: str = "") -> None:
        """End the visit of this word, if there is one."""
        accounts.let_out(self._store, digest(word))
        if name:
            self._note(name, "log out")

    def _note(self, who: str, what: str, *, failed: bool = False) -> None:
        accounts.note(self._store, Deed(at=now(), who=who, way=PAGE, what=what, failed=failed))


def came_from_here(request: Request) -> bool:
    """Whether it names this machine, and no proxy says that it passed it on for somebody."""
    passed_on = any(name in request.headers for name in PASSED_ON)
    return names_loopback(request.headers.get("host", "")) and not passed_on


def remembered(token: str) -> str:
    """What the cookie holds of the token: nothing from which it could be found."""
    return hmac.new(token.encode(), b"preceptor dashboard", hashlib.sha256).hexdigest()


def known_by(account: Account) -> str:
    """What a browser holds in which the account's password was right; worth nothing once there is another password."""
    return hmac.new(account.password.encode(), b"preceptor known", hashlib.sha256).hexdigest()


def digest(word: str) -> str:
    """What the store knows a visit by."""
    return hashlib.sha256(word.encode()).hexdigest()


def form_of(word: str) -> str:
    """What a form holds, to show that its page was made for whoever holds this word in a cookie."""
    return hmac.new(word.encode(), b"preceptor form", hashlib.sha256).hexdigest()


def visitor_of(request: Request) -> Visitor:
    """Who looks; whoever is not known does not get as far as this."""
    found: Visitor = request.state.visitor
    return found


def needs(role: Role) -> Callable[[Request], Visitor]:
    """What a page asks of who looks: this role.

    The function raises NotAllowed where they have a lesser one.
    """

    def check(request: Request) -> Visitor:
        visitor = visitor_of(request)
        if not visitor.role.may(role):
            raise NotAllowed(f"This is for the role {role}; yours is {visitor.role}.")
        return visitor

    return check


def sent(role: Role) -> Callable[[Request], Awaitable[Fields]]:
    """What a form asks of who sends it: this role, and that it stood on a page of theirs. Gives its fields.

    The function raises NotAllowed otherwise.
    """

    async def read(request: Request) -> Fields:
        visitor = needs(role)(request)
        given = await fields(request)
        prove(request, given, visitor.form)
        return given

    return read


def prove(request: Request, given: Mapping[str, str], form: str) -> None:
    """Let a form pass that came from a page of ours, made for this browser.

    Raises:
        NotAllowed: it did not.
    """
    near = request.headers.get("sec-fetch-site", "same-origin") in ("same-origin", "none")
    if not (near and form and hmac.compare_digest(given.get("form", "").encode(), form.encode())):
        raise NotAllowed("The page was too old, or was not ours. Open it again, and send it from there.")


async def fields(request: Request) -> Fields:
    """The fields of a form, the first of each name; what is too long for one of ours is cut off."""
    received = bytearray()
    async for piece in request.stream():
        received += piece
        if len(received) > LONGEST_BODY:
            break
    read = parse_qs(bytes(received[:LONGEST_BODY]).decode(errors="replace"))
    return {name: values[0].replace("\x00", "") for name, values in read.items()}


class Guard:
    """Lets pass who may look, and says to every browser what a page of ours may do: nothing but ours."""

    def __init__(self, app: ASGIApp, door: Door) -> None:
        self._app, self._door = app, door

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""

        async def sent(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(HEADERS)
            await send(message)

        request = Request(scope)
        visitor = await asyncio.to_thread(self._door.who, request)
        request.state.visitor = visitor
        refusal = await asyncio.to_thread(self._refusal, request, visitor)
        await (refusal or self._app)(scope, receive, sent)

    def _refusal(self, request: Request, visitor: Visitor | None) -> Response | None:
        """What is said to who may not look, or asks for what no database holds."""
        path, query = request.scope["path"], request.scope["query_string"].decode("latin-1")
        if "\x00" in f"{path}?{unquote(query)}":
            return Response("there is nothing of that name", 400)
        if visitor is not None:
            return None
        if not self._door.asks():
            return Response(ONLY_HERE, 421)
        if path.startswith(OPEN):  # not of `request.url`, which some versions of Starlette make of the `Host` too
            return None
        return RedirectResponse("/login", 303) if request.method == "GET" else Response(status_code=401)
