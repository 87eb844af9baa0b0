"""The compose file of a team says nothing that is not so; there is no container engine here to say it to."""

import os
import re
import shutil
import subprocess
from contextlib import closing
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Any

import psycopg
import pytest
import yaml

from connectors import studio_server
from connectors.wiring import cache_folder

DEPLOY = Path(__file__).resolve().parents[1] / "deploy"
COMPOSE: dict[str, Any] = yaml.safe_load((DEPLOY / "compose.yaml").read_text(encoding="utf-8"))
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
STUDIO: dict[str, str] = SERVICES["label-studio"]["environment"]
VARIABLE = re.compile(r"\$\{(\w+)(:?[-?][^}]*)?\}")


@pytest.fixture(scope="module")
def server_code() -> str:
    """All of Label Studio's settings, as installed."""
    venv = studio_server.install(cache_folder(), lambda _: None)
    (package,) = venv.glob("lib/python*/site-packages/label_studio")
    files = [*(package / "core").rglob("*.py"), package / "server.py", *(package / "organizations").glob("*.py")]
    return "\n".join(file.read_text(encoding="utf-8") for file in files)


@pytest.mark.parametrize("name", [name for name in STUDIO if name.startswith("LABEL_STUDIO_")])
def test_label_studio_reads_every_variable_that_it_is_given(name: str, server_code: str) -> None:
    bare = name.removeprefix("LABEL_STUDIO_")
    asked = rf"get_(?:bool_)?env(?:_list)?\(\s*['\"](?:LABEL_STUDIO_)?{bare}['\"]"
    assert re.search(asked, server_code) or f"'{name}'" in server_code, f"nothing reads {name}"


def test_the_hardening_is_that_of_the_local_server(tmp_path: Path) -> None:
    local = studio_server._environment(tmp_path, 1, {"token": "t", "password": "p"})
    own = ("BASE_DATA_DIR", "DJANGO_DB", "HOST", "USERNAME", "PASSWORD", "USER_TOKEN", "USER_ADDITIONAL_BANNED_SUBNETS")
    shared = [name for name in local if "PROXY" in name or name.startswith("LABEL_STUDIO_")]
    shared = [name for name in shared if name.removeprefix("LABEL_STUDIO_") not in own and name != "NO_PROXY"]
    assert len(shared) >= 9
    assert {name: STUDIO.get(name) for name in shared} == {name: local[name] for name in shared}


def test_label_studio_may_call_preceptors_network_and_no_other_private_address() -> None:
    banned = [ip_network(each.strip()) for each in STUDIO["LABEL_STUDIO_USER_ADDITIONAL_BANNED_SUBNETS"].split(",")]
    (pool,) = COMPOSE["networks"]["reviews"]["ipam"]["config"]
    network = ip_network(pool["subnet"])
    assert not any(each.overlaps(network) for each in banned if each.version == 4)
    forbidden = ("127.0.0.1", "10.1.1.1", "172.16.0.1", "172.30.56.1", "172.30.58.1", "192.168.1.1", "169.254.169.254")
    for address in (*forbidden, "::1", "fd00::1"):
        assert any(ip_address(address) in each for each in banned), address


def test_nothing_listens_beyond_loopback() -> None:
    ports = [port for service in SERVICES.values() for port in service.get("ports", [])]
    assert ports == ["127.0.0.1:8080:8080", "127.0.0.1:8097:8097"]
    assert COMPOSE["networks"]["database"] == {"internal": True}
    assert SERVICES["postgres"]["networks"] == ["database"]


def test_every_secret_must_be_given_and_the_example_holds_none() -> None:
    text = (DEPLOY / "compose.yaml").read_text(encoding="utf-8")
    example = dict(
        line.split("=", 1)
        for line in (DEPLOY / ".env.example").read_text(encoding="utf-8").splitlines()
        if line and not line.startswith("#")
    )
    named = VARIABLE.findall(text)
    assert {name for name, _ in named} == set(example)
    required = {name for name, default in named if default.startswith(":?")}
    assert required >= {name for name in example if re.search("PASSWORD|SECRET|TOKEN|LABEL_STUDIO_API_KEY", name)}
    assert all(example[name] == "" for name in required)


@pytest.mark.parametrize("name", list(SERVICES))
def test_services_name_what_is_there(name: str) -> None:
    service = SERVICES[name]
    assert "test" in service["healthcheck"]
    assert service["restart"] == "unless-stopped"
    if "build" in service:
        assert (DEPLOY / service["build"]["context"] / service["build"]["dockerfile"]).is_file()
    else:
        assert re.fullmatch(r"[a-z/-]+:\d[\w.]*", service["image"]), "an image without a version"
    for volume in service["volumes"]:
        source = VARIABLE.sub("./", volume).split(":")[0]
        assert source in COMPOSE["volumes"] or (DEPLOY / source).exists(), volume
    assert set(service["networks"]) <= set(COMPOSE["networks"])
    for other, wanted in service.get("depends_on", {}).items():
        assert wanted == {"condition": "service_healthy"}
        assert "healthcheck" in SERVICES[other]


def test_the_image_has_the_version_that_is_tested() -> None:
    dockerfile = (DEPLOY / "label-studio.Dockerfile").read_text(encoding="utf-8")
    assert f"ARG VERSION={studio_server.VERSION}\n" in dockerfile


@pytest.mark.skipif(shutil.which("psql") is None, reason="PostgreSQL's client is not here")
def test_each_program_has_a_database_that_the_other_cannot_read(postgresql: str) -> None:
    host = postgresql.split("host=")[1]
    passwords = {"LABEL_STUDIO_DB_PASSWORD": "it's one", "PRECEPTOR_DB_PASSWORD": 'another "$1"'}
    environment = {"PATH": os.environ["PATH"], "PGHOST": host, "POSTGRES_USER": "postgres", **passwords}
    subprocess.run(["sh", str(DEPLOY / "databases.sh")], check=True, env=environment, stdout=subprocess.DEVNULL)
    for role, other in (("label_studio", "preceptor"), ("preceptor", "label_studio")):
        with closing(psycopg.connect(f"host={host} user={role} dbname={role}")) as own:
            own.execute("CREATE TABLE made (number int)")
        with pytest.raises(psycopg.OperationalError, match="permission denied for database"):
            psycopg.connect(f"host={host} user={role} dbname={other}")
