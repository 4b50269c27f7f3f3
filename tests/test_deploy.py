"""Dockerfile, compose and Prometheus files: that they fit the server, and each other."""

import re
from typing import Any

import msgspec
import yaml

from embedsvc.settings import Settings
from tests.support.project import ROOT

DOCKERFILE = (ROOT / "Dockerfile").read_text()
COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "deploy/compose.yaml").read_text())
SERVICE: dict[str, Any] = COMPOSE["services"]["embedsvc"]
SETTINGS = {f"EMBEDSVC_{field.name.upper()}" for field in msgspec.structs.fields(Settings)}


def pins(name: str) -> dict[str, str]:
    text = (ROOT / "requirements" / f"{name}.txt").read_text()
    return dict(re.findall(r"^([\w.-]+)==(\S+)", text, re.MULTILINE))


def test_every_setting_that_is_named_exists() -> None:
    named = set(
        re.findall(r"\bEMBEDSVC_\w+", DOCKERFILE + (ROOT / "deploy/compose.yaml").read_text())
    )
    named |= set(re.findall(r"\bEMBEDSVC_\w+", (ROOT / "docs/deploy.md").read_text()))
    assert named
    assert named <= SETTINGS


def test_what_is_copied_into_the_image_is_not_ignored() -> None:
    copied = re.findall(r"^COPY (?!--)(.+) \S+$", DOCKERFILE, re.MULTILINE)
    wanted = {name for line in copied for name in line.split()}
    lines = (ROOT / ".dockerignore").read_text().splitlines()
    assert "*" in lines
    assert wanted == {line[1:] for line in lines if line.startswith("!")}
    assert all((ROOT / name).exists() for name in wanted)


def test_the_image_s_pins_are_the_tested_ones_with_hashes() -> None:
    runtime, cuda = pins("runtime"), pins("cuda13")
    assert {name: cuda[name] for name in runtime} == runtime
    assert "mlx-cuda-13" in cuda
    installs = [line for line in DOCKERFILE.splitlines() if "pip install" in line]
    assert all("--require-hashes" in line or "--no-deps" in line for line in installs)


def test_the_port_is_that_of_the_server() -> None:
    assert f"EXPOSE {Settings().port}" in DOCKERFILE
    assert SERVICE["ports"] == [f"127.0.0.1:{Settings().port}:{Settings().port}"]


def test_nothing_is_published_beyond_the_machine() -> None:
    ports = [port for service in COMPOSE["services"].values() for port in service["ports"]]
    assert ports
    assert all(port.startswith("127.0.0.1:") for port in ports)


def test_the_server_has_time_to_stop() -> None:
    assert int(SERVICE["stop_grace_period"].removesuffix("s")) > Settings().shutdown_seconds


def test_prometheus_asks_the_server_under_a_name_it_answers_to() -> None:
    scrape = yaml.safe_load((ROOT / "deploy/prometheus.yml").read_text())["scrape_configs"]
    (target,) = scrape[0]["static_configs"][0]["targets"]
    host, _, port = target.partition(":")
    assert host in COMPOSE["services"]
    assert int(port) == Settings().port
    assert host in SERVICE["environment"]["EMBEDSVC_ALLOWED_HOSTS"].split(",")
    mounted = COMPOSE["services"]["prometheus"]["volumes"]
    assert "./prometheus.yml:/etc/prometheus/prometheus.yml:ro" in mounted


def test_compose_builds_a_target_of_the_dockerfile() -> None:
    targets = re.findall(r"^FROM \S+ AS (\S+)$", DOCKERFILE, re.MULTILINE)
    assert SERVICE["build"]["target"] in targets
    assert targets[-1] == "server"  # what `docker build` makes if it is told nothing


def test_every_service_is_bounded_and_may_do_as_little_as_it_can() -> None:
    for name, service in COMPOSE["services"].items():
        assert re.fullmatch(r"\d+g", service["mem_limit"]), name
        assert 0 < service["pids_limit"] <= 1024, name
        assert service["read_only"] is True, name
        assert service["cap_drop"] == ["ALL"], name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        assert "privileged" not in service, name


def test_images_of_others_are_pinned() -> None:
    for name in ("prometheus", "grafana"):
        assert re.fullmatch(r"[\w./-]+:v?\d+\.\d+\.\d+", COMPOSE["services"][name]["image"])


def test_nobody_can_log_in_to_grafana_and_no_page_reach_it_under_another_name() -> None:
    environment = COMPOSE["services"]["grafana"]["environment"]
    assert environment["GF_SECURITY_DISABLE_INITIAL_ADMIN_CREATION"] == "true"  # no admin:admin
    assert environment["GF_AUTH_DISABLE_LOGIN_FORM"] == "true"
    assert environment["GF_AUTH_BASIC_ENABLED"] == "false"
    assert environment["GF_AUTH_ANONYMOUS_ORG_ROLE"] == "Viewer"
    assert environment["GF_SERVER_ENFORCE_DOMAIN"] == "true"
    assert environment["GF_SERVER_DOMAIN"] == "localhost"


def test_prometheus_is_read_by_no_page_but_its_own() -> None:
    (allowed,) = [
        argument.partition("=")[2]
        for argument in COMPOSE["services"]["prometheus"]["command"]
        if argument.startswith("--web.cors.origin=")
    ]
    for origin, may in (
        ("http://localhost:9090", True),
        ("http://localhost:3000", True),
        ("https://evil.example", False),
        ("http://localhost:3000.evil.example", False),
    ):
        assert bool(re.fullmatch(allowed, origin)) is may
