"""What the documentation and the files for Prometheus and Grafana say of metrics, settings and exit
codes is so: they are compared with a running server."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import msgspec
import pytest
import yaml
from prometheus_client import Metric
from prometheus_client.parser import text_string_to_metric_families

from embedsvc import errors, exits
from embedsvc.daemon.spec import HOPELESS, State
from embedsvc.errors import EmbedsvcError, RequestError, SetupError
from embedsvc.exits import EXIT_ADDRESS, EXIT_HUNG, EXIT_USAGE, EXITS
from embedsvc.settings import Settings
from tests.support.project import ROOT
from tests.support.server import serving

PAGE = (ROOT / "docs/operations.md").read_text()
DASHBOARD: dict[str, Any] = json.loads((ROOT / "deploy/grafana.json").read_text())
ALERTS: dict[str, Any] = yaml.safe_load((ROOT / "deploy/alerts.yml").read_text())
RULES = [rule for group in ALERTS["groups"] for rule in group["rules"]]
OF_PROMETHEUS = {"up"}


@pytest.fixture(scope="module")
def families(tmp_path_factory: pytest.TempPathFactory, tiny_folder: Path) -> list[Metric]:
    """What a real server says after one request and one refusal."""
    folder = tmp_path_factory.mktemp("operations")
    cards = folder / "models.toml"
    cards.write_text(f"[models.tiny]\npath = '{tiny_folder}'\npreload = true\n")
    options = ("--backend", "numpy", "--cache-folder", str(folder / "cache"))
    with serving(*options, cards=cards) as (url, _):
        for model in ("tiny", "none"):
            httpx2.post(f"{url}/v1/embeddings", json={"model": model, "input": "hello"})
        text = httpx2.get(f"{url}/metrics").text
    return list(text_string_to_metric_families(text))


def described(families: list[Metric]) -> dict[str, set[str]]:
    """Names as the documentation has them, with their labels."""
    found: dict[str, set[str]] = {}
    suffix = {"counter": "_total", "histogram": "", "gauge": ""}
    for family in families:
        if family.name.startswith("embedsvc_"):
            name = family.name + suffix[family.type]
            found[name] = {label for s in family.samples for label in s.labels} - {"le"}
    return found


def table_of_metrics() -> dict[str, set[str]]:
    rows = re.findall(r"^\| `(embedsvc_\w+)` \| ([^|]*)\|", PAGE, re.MULTILINE)
    assert len(rows) == len({name for name, _ in rows})
    return {name: set(re.findall(r"`(\w+)`", labels)) for name, labels in rows}


def test_every_metric_is_in_the_documentation_with_its_labels(families: list[Metric]) -> None:
    assert table_of_metrics() == described(families)
    histograms = {family.name for family in families if family.type == "histogram"}
    told = set(re.findall(r"^\| `(\w+)` \| `model` \| histogram", PAGE, re.MULTILINE))
    assert told == histograms


def names_and_labels(expression: str) -> list[tuple[str, set[str]]]:
    """The metrics that an expression reads, and the labels it picks them by."""
    plain = re.sub(r'"[^"]*"', '""', expression)
    found = re.findall(r"\b((?:embedsvc|process)_\w+|up)\b(?:\{([^}]*)\})?", plain)
    return [(name, set(re.findall(r"(\w+)[=!]", labels))) for name, labels in found]


def expressions() -> list[str]:
    of_panels = [target["expr"] for panel in DASHBOARD["panels"] for target in panel["targets"]]
    return [*of_panels, *(rule["expr"] for rule in RULES)]


def test_dashboard_and_alerts_read_what_there_is(families: list[Metric]) -> None:
    samples = {sample.name: sample.labels for family in families for sample in family.samples}
    read: set[str] = set()
    for expression in expressions():
        for name, labels in names_and_labels(expression):
            read.add(name)
            if name not in OF_PROMETHEUS:
                assert name in samples, f"{name} in {expression}"
                assert labels <= {*samples[name], "job", "instance"}, expression
    assert len(read) > 25


def test_every_expression_is_whole() -> None:
    for expression in expressions():
        for pair in ("()", "{}", "[]"):
            assert expression.count(pair[0]) == expression.count(pair[1]), expression
        assert names_and_labels(expression)


def test_the_dashboard_s_panels_do_not_overlap_and_are_told_apart() -> None:
    panels = DASHBOARD["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    assert len({panel["title"] for panel in panels}) == len(panels)
    taken = [
        (x, y)
        for panel in panels
        for place in [panel["gridPos"]]
        for x in range(place["x"], place["x"] + place["w"])
        for y in range(place["y"], place["y"] + place["h"])
    ]
    assert len(taken) == len(set(taken))
    assert max(x for x, _ in taken) < 24


def test_refusals_that_an_alert_names_exist() -> None:
    def kinds(kind: type[EmbedsvcError]) -> set[str]:
        names = {re.sub("(?<=[a-z])(?=[A-Z])", "_", kind.__name__).lower()}
        return names.union(*(kinds(each) for each in kind.__subclasses__()))

    named = {
        reason
        for rule in RULES
        for reasons in re.findall(r'reason=~?"([^"]+)"', rule["expr"])
        for reason in reasons.split("|")
    }
    assert named
    assert named <= kinds(RequestError)


def test_every_alert_is_in_the_documentation_with_what_to_do() -> None:
    told = re.findall(r"^\| `(Embedsvc\w+)` \| \w", PAGE, re.MULTILINE)
    assert sorted(told) == sorted(rule["alert"] for rule in RULES)
    assert all(rule["annotations"]["summary"] for rule in RULES)


def test_prometheus_and_grafana_are_given_the_files() -> None:
    compose = yaml.safe_load((ROOT / "deploy/compose.yaml").read_text())
    prometheus = yaml.safe_load((ROOT / "deploy/prometheus.yml").read_text())
    (rules,) = prometheus["rule_files"]
    assert f"./alerts.yml:{rules}:ro" in compose["services"]["prometheus"]["volumes"]
    (dashboard,) = [
        v for v in compose["services"]["grafana"]["volumes"] if v.startswith("./grafana.json:")
    ]
    provider = yaml.safe_load(compose["configs"]["grafana-dashboards"]["content"])
    path = provider["providers"][0]["options"]["path"]
    assert dashboard.split(":")[1].startswith(f"{path}/")
    assert prometheus["scrape_configs"][0]["job_name"] == "embedsvc"


def test_settings_are_named_as_they_are_with_their_defaults() -> None:
    names = {field.name for field in msgspec.structs.fields(Settings)}
    for option in re.findall(r"`--([a-z-]+)", PAGE):
        assert option.replace("-", "_") in names, option
    defaults = Settings()
    for option, value in re.findall(r"`--([a-z-]+)` ([\d ]+\d)", PAGE):
        default = getattr(defaults, option.replace("-", "_"))
        unit = {"max_body_bytes": 1 << 20, "max_head_bytes": 1 << 10}
        number = int(value.replace(" ", "")) * unit.get(option.replace("-", "_"), 1)
        assert number == default, option
    for option, value in re.findall(r"`--([a-z-]+)` \((\d+)\)", PAGE):
        assert int(value) == getattr(defaults, option.replace("-", "_")), option


def kinds(root: type[SetupError] = SetupError) -> Iterator[type[SetupError]]:
    yield root
    for kind in root.__subclasses__():
        yield from kinds(kind)


def test_every_exit_code_has_one_meaning_in_one_place() -> None:
    tree = errors.__doc__ or ""
    for kind in kinds():
        assert kind.exit_code in EXITS
        if kind is not SetupError:
            assert re.search(rf"── {kind.__name__} +{kind.exit_code} ", tree), kind
    assert {kind.exit_code for kind in kinds()}.isdisjoint({EXIT_HUNG, EXIT_USAGE, 0})
    numbers = [value for name, value in vars(exits).items() if name.startswith("EXIT_")]
    assert sorted([0, *numbers]) == sorted(EXITS)
    assert len(set(EXITS.values())) == len(EXITS)


def test_no_page_and_no_help_gives_a_code_another_meaning() -> None:
    found = 0
    for file in [*(ROOT / "docs").glob("*.md"), *(ROOT / "embedsvc").rglob("*.py")]:
        text = " ".join(file.read_text(encoding="utf-8").split())
        for code in re.findall(r"[Ee]xit code (?:is )?(\d+)", text):
            assert int(code) in EXITS, file
            found += 1
    assert found > 5


def test_the_unit_and_the_status_of_a_service_know_what_the_server_ends_with(tmp_path) -> None:
    assert not set(HOPELESS) & {EXIT_HUNG, EXIT_ADDRESS}
    for code, meaning in EXITS.items():
        said = State(installed=True, last_exit=code).in_words()
        assert not code or said.endswith(f"it last ended with {code}: {meaning}")
