"""What the documentation tells people to paste works; see clients/ for other libraries'."""

import re
import shlex
import subprocess
import sys
from collections.abc import Iterator

import httpx2
import pytest

from tests.documents import ROOT, Example, examples
from tests.test_server import serving

EXAMPLES = examples()
OURS = [
    example
    for example in EXAMPLES
    if example.language == "sh" or set(re.findall(r"from (\w+)", example.code)) <= {"openai"}
]


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    with serving("--backend", "numpy") as (url, _):
        yield url


@pytest.mark.parametrize("example", OURS, ids=[e.where for e in OURS])
def test_an_example_works(server: str, example: Example) -> None:
    code = example.at(server)
    if example.language == "sh":
        curl(code)
        return
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=50)
    assert done.returncode == 0, done.stderr


def curl(command: str) -> None:
    """Send what curl would send, on machines that have no curl too."""
    name, url, *options = shlex.split(command.replace("\\\n", ""))
    assert name == "curl"
    given = list(zip(options[::2], options[1::2], strict=True))
    headers = dict(value.split(": ", 1) for option, value in given if option == "-H")
    data = [value for option, value in given if option == "-d"]
    assert {option for option, _ in given} <= {"-H", "-d"}
    answer = httpx2.request("POST" if data else "GET", url, headers=headers, content="".join(data))
    assert answer.status_code == 200, answer.text
    assert answer.json()


def test_there_are_examples_on_every_page_for_a_client() -> None:
    pages = {example.where.partition(":")[0] for example in EXAMPLES}
    clients = ("openai", "langchain", "llama-index", "ollama", "open-webui", "n8n")
    assert pages >= {"README.md", "api.md", *(f"{name}.md" for name in clients)}
    assert len(OURS) >= 8


def test_links_lead_somewhere() -> None:
    for page in [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").glob("*.md")]:
        for target in re.findall(r"\]\(([^):#]+)\)", page.read_text()):
            assert (page.parent / target).exists(), f"{page.name}: {target}"


def test_every_setting_is_in_the_documentation() -> None:
    pages = [ROOT / "README.md", *(ROOT / "docs").glob("*.md")]
    text = "\n".join(page.read_text() for page in pages)
    for name in ("api-keys-file", "allowed-hosts", "cors-origins", "insecure", "max-inputs"):
        assert f"--{name}" in text


def test_what_a_million_texts_cost_is_worked_out_from_the_table_of_speeds() -> None:
    row = re.search(r"^\| \*\*embedsvc\*\* (.*)$", (ROOT / "README.md").read_text(), re.MULTILINE)
    assert row
    _, _, bulk, mixed = [int(cell) for cell in re.findall(r"\*\*(\d+)\*\*", row[1])]
    page = (ROOT / "docs" / "scaling.md").read_text()
    seconds = 1_000_000 / bulk
    assert f"1,000,000 / {bulk} = {seconds:,.0f} seconds = {seconds / 60:.0f} minutes" in page
    assert f"{seconds / 60:.0f} minutes of two cores at $0.10 an hour" in page
    assert f"= ${seconds / 3600 * 0.1:.2f}" in page
    assert f"is {mixed} a second there: {1_000_000 / mixed / 60:.0f} minutes" in page
