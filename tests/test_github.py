"""The forms for issues and the workflow of CI, as far as they can be tried away from GitHub."""

import re
import shlex
import subprocess
from typing import Any

import pytest
import yaml

from embedsvc.cli import _parser
from tests.support.project import ROOT

FOLDER = ROOT / ".github"
FORMS = sorted(FOLDER.glob("ISSUE_TEMPLATE/*.yml"))
FIELDS = {"markdown", "textarea", "dropdown"}
WORKFLOW: dict[str, Any] = yaml.safe_load((FOLDER / "workflows/ci.yml").read_text("utf-8"))
STEPS = [
    (f"{name} {number}", step)
    for name, job in WORKFLOW["jobs"].items()
    for number, step in enumerate(job["steps"])
]
SCRIPTS = [pytest.param(step["run"], id=name) for name, step in STEPS if "run" in step]
COMMAND = re.compile(r"(?:`|(?<![\w./-])\.venv/bin/|\$)embedsvc ([^`\n|>;&\"]*)")


def commands(text: str) -> list[list[str]]:
    """The arguments of each call of `embedsvc`, by any of its names."""
    return [shlex.split(found) for found in COMMAND.findall(text)]


@pytest.mark.parametrize("form", FORMS, ids=lambda form: form.stem)
def test_a_form_has_what_github_asks_of_one(form: Any) -> None:
    parsed = yaml.safe_load(form.read_text("utf-8"))
    assert set(parsed) <= {"name", "description", "title", "labels", "body"}
    assert all(isinstance(parsed[name], str) for name in ("name", "description"))
    fields = [field for field in parsed["body"] if field["type"] != "markdown"]
    ids = [field["id"] for field in fields]
    assert len(ids) == len(set(ids))
    for field in parsed["body"]:
        assert field["type"] in FIELDS
        about = field["attributes"]
        assert about.get("label") or about.get("value")
        assert all(isinstance(option, str) for option in about.get("options", []))


@pytest.mark.parametrize("form", FORMS, ids=lambda form: form.stem)
def test_a_form_asks_for_a_report_by_a_command_that_there_is(form: Any) -> None:
    asked = commands(form.read_text("utf-8"))
    assert any(words[0] == "report" and "--markdown" in words for words in asked)
    for words in asked:
        _parser(words).parse_args(words)


@pytest.mark.parametrize("form", FORMS, ids=lambda form: form.stem)
def test_a_form_links_to_files_that_are_here(form: Any) -> None:
    for link in re.findall(r"\(\.\./blob/main/([^)#]+)", form.read_text("utf-8")):
        assert (ROOT / link).exists()


@pytest.mark.parametrize("script", SCRIPTS)
def test_a_step_of_the_workflow_is_a_script_of_commands_that_there_are(script: str) -> None:
    plain = re.sub(r"\$\{\{.*?\}\}", "x", script)
    done = subprocess.run(["bash", "-n"], input=plain, text=True, capture_output=True)
    assert not done.stderr
    for words in commands(plain):
        _parser(words).parse_args(words)
    targets = (ROOT / "Makefile").read_text("utf-8")
    for target in re.findall(r"^make ([\w-]+)$", plain, re.MULTILINE):
        assert f"\n{target}:" in targets


@pytest.mark.parametrize("job", ["macos", "macos-intel"])
def test_what_is_kept_of_a_mac_is_what_its_report_wrote(job: str) -> None:
    steps = WORKFLOW["jobs"][job]["steps"]
    (report,) = [
        words for step in steps for words in commands(step.get("run", "")) if "report" in words
    ]
    (kept,) = [
        step for step in steps if step.get("uses", "").startswith("actions/upload-artifact@")
    ]
    written = [word for word in report if word.endswith((".json", ".md"))]
    assert kept["with"]["path"].split() == written
    assert kept["if"] == "${{ !cancelled() }}"
