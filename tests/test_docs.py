"""What the documentation tells people to paste works; see clients/ for other libraries'."""

import importlib
import json
import os
import re
import shlex
import signal
import subprocess
import sys
from argparse import ArgumentParser
from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest

from embedsvc.cli import COMMANDS, _parser
from embedsvc.commands.arguments import actions, subcommands
from tests.support.commands import NOT_HERE, Command, commands, make_files
from tests.support.corpus import write_corpus, write_first_layer
from tests.support.documents import (
    ADDRESS,
    HERE,
    ROOT,
    Example,
    examples,
    pages,
    printed,
    run_program,
    save_files,
    write_workplace,
)
from tests.support.server import serving

EXAMPLES = examples()
PYTHON = [example for example in EXAMPLES if example.language == "python"]
PROGRAMS = [e for e in PYTHON if e.imports <= HERE and e.reason is None]
GUIDES = [e for e in PROGRAMS if e.page in ("rag.md", "search.md", "clustering.md")]
ELSEWHERE = [example for example in PYTHON if example.reason is not None]
BLOCKS = [example for example in EXAMPLES if example.language == "sh"]


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    with serving("--backend", "numpy") as (url, _):
        yield url


@pytest.fixture
def workplace(tmp_path: Path) -> Path:
    write_workplace(tmp_path)
    return tmp_path


@pytest.mark.parametrize("example", PROGRAMS, ids=[e.where for e in PROGRAMS])
def test_a_program_works(server: str, workplace: Path, example: Example) -> None:
    save_files(workplace, server)
    make_files(example, workplace, server)
    said = run_program(example.at(server), workplace)
    for wanted in printed(example):
        assert wanted in said


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path]]:
    """A server with a model that is quick, and a folder of texts as they are."""
    folder = tmp_path_factory.mktemp("corpus")
    write_corpus(folder)
    with serving(cards=write_first_layer(folder)) as (url, _):
        save_files(folder, url)
        yield url, folder


@pytest.mark.timeout(400)
@pytest.mark.parametrize("example", GUIDES, ids=[e.where for e in GUIDES])
def test_a_guide_holds_on_texts_as_they_are_and_when_it_is_run_again(
    corpus: tuple[str, Path], example: Example
) -> None:
    url, folder = corpus
    for _ in range(2):
        make_files(example, folder, url)
        run_program(example.at(url), folder)


@pytest.mark.parametrize("rows", [[], ["one"], ["same"] * 9, ["same", "", "other", "same"]])
def test_clusters_and_duplicates_are_found_among_few_rows_and_equal_ones(
    server: str, tmp_path: Path, rows: list[str]
) -> None:
    (tmp_path / "reviews.jsonl").write_text("".join(json.dumps({"body": r}) + "\n" for r in rows))
    duplicates, clusters = [e for e in GUIDES if e.page == "clustering.md"]
    make_files(clusters, tmp_path, server)
    again = [row for i, row in enumerate(rows) if row and row in rows[:i]]
    assert run_program(duplicates.code, tmp_path).splitlines() == [
        f"1.00  {row!r} is like {row!r}" for row in again
    ]
    members = [re.match(r"\d+", line) for line in run_program(clusters.code, tmp_path).splitlines()]
    assert len(members) == len({row for row in rows if row})
    assert sum(int(found[0]) for found in members if found) == sum(map(bool, rows))


def test_passages_lose_nothing_and_fit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_corpus(tmp_path)
    save_files(tmp_path, ADDRESS)
    monkeypatch.syspath_prepend(tmp_path)
    passages = importlib.import_module("passages")
    for file in (tmp_path / "notes").rglob("*.md"):
        if file.is_file():
            text = file.read_text(encoding="utf-8", errors="replace")
            parts = list(passages.cut(text))
            assert "".join("".join(parts).split()) == "".join(text.split())
            assert all(0 < len(part) <= 802 for part in parts)


@pytest.mark.parametrize("example", ELSEWHERE, ids=[f"{e.where} {e.reason}" for e in ELSEWHERE])
def test_a_program_that_is_run_elsewhere_imports_what_there_is(example: Example) -> None:
    compile(example.code, example.where, "exec")
    for line in re.findall(r"^(?:from|import) .+$", example.code, re.MULTILINE):
        exec(line, {})  # noqa: S102 - our own pages


def named(example: Example) -> str:
    """A block's name, with why some of it is not run here."""
    reasons = {f"NOT RUN: {command.reason}" for command in commands(example) if command.reason}
    return " ".join([example.where, *sorted(reasons)])


@pytest.mark.parametrize("example", BLOCKS, ids=map(named, BLOCKS))
def test_commands_work(server: str, workplace: Path, example: Example) -> None:
    found = commands(example)
    assert found
    for command in found:
        if command.reason is not None:
            read(command)
        elif command.line.startswith("curl "):
            curl(command.line.replace(ADDRESS, server))
        elif command.serves:
            serve(command.at(server))
        else:
            run(command, command.at(server).replace(ADDRESS, server), workplace)


def read(command: Command) -> None:
    """See that a shell would understand it, and that embedsvc would."""
    done = subprocess.run(["bash", "-n", "-c", command.line], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    if (arguments := command.ours()) is not None:
        _parser(arguments).parse_args(arguments)


def run(command: Command, line: str, folder: Path) -> None:
    done = subprocess.run(
        ["bash", "-c", line], cwd=folder, env=environment(), capture_output=True, text=True
    )
    assert done.returncode in command.codes, f"{line}\n{done.stdout}{done.stderr}"


def serve(line: str) -> None:
    """Start it, wait until it says how to try it, and stop it."""
    process = subprocess.Popen(
        ["bash", "-c", line],
        cwd=ROOT,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    try:
        assert process.stdout is not None
        assert any("Try:" in said for said in process.stdout), line
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        process.communicate()


def environment() -> dict[str, str]:
    """With this environment's commands before others."""
    return os.environ | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}


def curl(command: str) -> None:
    """Send what curl would send, on machines that have no curl too."""
    name, url, *options = shlex.split(command)
    assert name == "curl"
    given = list(zip(options[::2], options[1::2], strict=True))
    headers = dict(value.split(": ", 1) for option, value in given if option == "-H")
    data = [value for option, value in given if option == "-d"]
    assert {option for option, _ in given} <= {"-H", "-d"}
    answer = httpx2.request("POST" if data else "GET", url, headers=headers, content="".join(data))
    assert answer.status_code == 200, answer.text
    assert answer.content


def test_every_example_is_run_by_somebody() -> None:
    ours = {example.where for example in (*PROGRAMS, *BLOCKS)}
    clients = {e.where for e in PYTHON if e.reason is None}  # clients/test_docs.py
    others = {example.where for example in ELSEWHERE}
    assert ours | clients | others == {example.where for example in EXAMPLES}
    for page in pages():  # nothing that looks like a command hides in another kind of block
        text = re.sub(r"(?ms)^```(sh|python)\n.*?^```$", "", page.read_text())
        assert not re.search(r"(?m)^ *(curl|make|embedsvc|docker|pip) ", text), page.name


def test_most_commands_are_run() -> None:
    found = [command for example in BLOCKS for command in commands(example)]
    run = [command for command in found if command.reason is None]
    assert len(run) >= 25
    assert {"make", "embedsvc", "curl"} <= {command.line.split()[0] for command in run}


def test_commands_named_in_a_sentence_have_the_options_that_it_names() -> None:
    found = 0
    for page in pages():
        for code in re.findall(r"`(?:\.venv/bin/)?embedsvc ([a-z][^`]*)`", page.read_text()):
            name, *words = code.split()
            assert name in COMMANDS, f"{page.name}: embedsvc {code}"
            known = {option for at in subparsers(name) for option in options(at)}
            given = {word.partition("=")[0] for word in words if word.startswith("--")}
            assert given <= known, f"{page.name}: embedsvc {code}"
            found += 1
    assert found > 30


def subparsers(name: str) -> list[ArgumentParser]:
    """The parser of a command, and those of what is below it."""
    parser = {word: found for word, found, _ in subcommands(_parser([name]))}[name]
    return [parser, *(below for _, below, _ in subcommands(parser))]


def options(parser: ArgumentParser) -> set[str]:
    return {option for action in actions(parser) for option in action.option_strings}


def test_every_reason_for_not_running_something_is_needed() -> None:
    found = {command.reason for example in BLOCKS for command in commands(example)}
    assert found - {None} == {reason for _, reason in NOT_HERE}


def test_there_are_examples_on_every_page_for_a_client() -> None:
    names = {example.page for example in EXAMPLES}
    clients = ("openai", "langchain", "llama-index", "ollama", "open-webui", "n8n", "migrating")
    guides = ("quickstart", "rag", "search", "clustering", "prompts")
    assert names >= {"README.md", "api.md", *(f"{name}.md" for name in (*clients, *guides))}


def anchors(page: Path) -> set[str]:
    """What a link to a page may end in, as GitHub makes it of headings."""
    found: set[str] = set()
    for heading in re.findall(r"^#+ (.+)$", page.read_text(), re.MULTILINE):
        kept = re.sub(r"[^\w\- ]", "", re.sub(r"\[(.*?)\]\(.*?\)", r"\1", heading).lower())
        found.add(kept.strip().replace(" ", "-"))
    return found


@pytest.mark.parametrize("page", [*pages(), ROOT / "CONTRIBUTING.md"], ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^) :]+)\)", page.read_text()):
        path, _, anchor = target.partition("#")
        other = page.parent / path if path else page
        assert other.exists(), f"{page.name}: {target}"
        if anchor:
            assert anchor in anchors(other), f"{page.name}: {target}"


def test_every_page_is_in_the_table_of_contents() -> None:
    contents = (ROOT / "docs" / "README.md").read_text()
    for page in (ROOT / "docs").glob("*.md"):
        assert page.name == "README.md" or f"]({page.name})" in contents, page.name


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
