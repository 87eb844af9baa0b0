"""A local Label Studio: installed once in an environment of its own, started headless on loopback."""

import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import httpx
import psutil
from filelock import FileLock

from loop.errors import BoardDown

VERSION = "1.23.2"
USER = "reviewer@example.com"
START_SECONDS = 300.0
STATE = "server.json"
ELSEWHERE = "0.0.0.0/8,10.0.0.0/8,100.64.0.0/10,169.254.0.0/16,172.16.0.0/12,192.168.0.0/16,fc00::/7,fe80::/10"
"""Private networks that its webhooks must not reach; loopback, where `preceptor serve` listens, is not among them."""
Say = Callable[[str], None]


@dataclass(frozen=True)
class Studio:
    """A running server and how to get in."""

    url: str
    token: str
    user: str
    password: str
    pid: int
    process_started: float


def install(cache: Path, say: Say) -> Path:
    """Install the server where it is not there yet; the environment's folder."""
    folder = cache / f"label-studio-{VERSION}"
    folder.mkdir(parents=True, exist_ok=True)
    with _one_process(folder):
        _install(folder, say)
    return folder / "venv"


def _one_process(folder: Path) -> FileLock:
    """Others wait meanwhile, so that two projects of a user can start at once."""
    return FileLock(folder / ".lock")


def _install(folder: Path, say: Say) -> None:
    if not (folder / ".ready").exists():
        say(f"installing Label Studio {VERSION} in an environment of its own (once, a few minutes)")
        venv = folder / "venv"
        subprocess.run([sys.executable, "-m", "venv", str(venv)], check=True)
        wanted = f"label-studio=={VERSION}"
        done = subprocess.run([venv / "bin" / "pip", "install", "--quiet", wanted], check=False, capture_output=True)
        if done.returncode:
            raise BoardDown(f"Label Studio cannot be installed: {done.stderr.decode(errors='replace')[-500:]}")
        (folder / ".ready").touch()


def start(folder: Path, *, cache: Path, port: int, say: Say) -> Studio:
    """Start a server whose data lie in `folder`, or find the one that runs there already.

    Raises:
        BoardDown: the port is taken, or the server does not come up.
    """
    live = running(folder)
    if live is not None:
        return live
    venv = install(cache, say)
    port = port or _free_port()
    if _answers(port):
        raise BoardDown(f"port {port} is taken; free it or choose another with --port")
    template = cache / f"label-studio-{VERSION}" / "template"
    with _one_process(template.parent):
        if not template.exists():
            say("preparing Label Studio's database (once, a minute or two)")
            _make_template(venv, template)
    if not folder.exists():
        folder.parent.mkdir(parents=True, exist_ok=True)
        shutil.copytree(template, folder)
    secret = json.loads((folder / "secret.json").read_text(encoding="utf-8"))
    return _launch(venv, folder, port, secret)


def running(folder: Path) -> Studio | None:
    """The server of this folder, if it lives."""
    state = folder / STATE
    if not state.exists():
        return None
    studio = Studio(**json.loads(state.read_text(encoding="utf-8")))
    return studio if _lives(studio) else None


def stop(studio: Studio) -> None:
    """End the server and wait until it is gone."""
    if not _lives(studio):
        return
    os.kill(studio.pid, signal.SIGTERM)
    try:
        psutil.Process(studio.pid).wait(timeout=20)
    except psutil.TimeoutExpired:
        os.kill(studio.pid, signal.SIGKILL)
    except psutil.NoSuchProcess:
        return


def _make_template(venv: Path, template: Path) -> None:
    """Start once on an empty folder, so that later starts find a migrated database with a user."""
    partial = template.with_name(".template.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    secret = {"token": secrets.token_hex(20), "password": secrets.token_urlsafe(12)}
    file = partial / "secret.json"
    file.touch(mode=0o600)
    file.write_text(json.dumps(secret), encoding="utf-8")
    stop(_launch(venv, partial, _free_port(), secret))
    (partial / STATE).unlink()
    partial.rename(template)


def _launch(venv: Path, folder: Path, port: int, secret: dict[str, str]) -> Studio:
    command = [str(venv / "bin" / "label-studio"), "start", "--no-browser", "--internal-host", "127.0.0.1"]
    with (folder / "server.log").open("ab") as log:
        process = subprocess.Popen(
            [*command, "--port", str(port), "--log-level", "WARNING"],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env=_environment(folder, port, secret),
            start_new_session=True,
        )
    studio = Studio(
        url=f"http://127.0.0.1:{port}",
        token=secret["token"],
        user=USER,
        password=secret["password"],
        pid=process.pid,
        process_started=psutil.Process(process.pid).create_time(),
    )
    _wait(process, studio, folder)
    process.returncode = 0  # it outlives this process on purpose; Popen would warn about that
    state = folder / STATE
    state.touch(mode=0o600)
    state.write_text(json.dumps(asdict(studio)), encoding="utf-8")
    return studio


def _wait(process: subprocess.Popen[bytes], studio: Studio, folder: Path) -> None:
    """Wait for health; the server silently takes another port, so the process must own this one."""
    until = time.monotonic() + START_SECONDS
    with httpx.Client(trust_env=False, timeout=5.0) as client:
        while time.monotonic() < until:
            if process.poll() is not None:
                raise BoardDown(f"Label Studio ended at once; see {folder / 'server.log'}")
            try:
                if client.get(f"{studio.url}/health").status_code == httpx.codes.OK:
                    return
            except httpx.HTTPError:
                pass
            time.sleep(0.25)
    process.terminate()
    raise BoardDown(f"Label Studio did not come up within {START_SECONDS:.0f} s; see {folder / 'server.log'}")


def _environment(folder: Path, port: int, secret: dict[str, str]) -> dict[str, str]:
    """Loopback only: no telemetry, no version check, no public host."""
    keep = {name: value for name, value in os.environ.items() if name in ("PATH", "HOME", "LANG", "TMPDIR")}
    settings = {
        "BASE_DATA_DIR": str(folder.resolve()),
        "DJANGO_DB": "sqlite",
        "HOST": f"http://127.0.0.1:{port}",
        "USERNAME": USER,
        "PASSWORD": secret["password"],
        "USER_TOKEN": secret["token"],
        "ENABLE_LEGACY_API_TOKEN": "true",
        "DISABLE_SIGNUP_WITHOUT_LINK": "true",
        "COLLECT_ANALYTICS": "false",
        "SENTRY_DSN": "",
        "FRONTEND_SENTRY_DSN": "",
        "LATEST_VERSION_CHECK": "false",
        "FEATURE_FLAGS_OFFLINE": "true",
        "USE_DEFAULT_BANNED_SUBNETS": "false",
        "USER_ADDITIONAL_BANNED_SUBNETS": ELSEWHERE,
    }
    closed = {
        "HTTP_PROXY": "http://127.0.0.1:9",
        "HTTPS_PROXY": "http://127.0.0.1:9",
        "NO_PROXY": "127.0.0.1,localhost",
    }
    return keep | {f"LABEL_STUDIO_{name}": value for name, value in settings.items()} | closed


def _lives(studio: Studio) -> bool:
    try:
        process = psutil.Process(studio.pid)
        return abs(process.create_time() - studio.process_started) < 1.0 and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def _answers(port: int) -> bool:
    with socket.socket() as probe:
        probe.settimeout(1.0)
        return probe.connect_ex(("127.0.0.1", port)) == 0


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
