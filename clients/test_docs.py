"""What the documentation tells people to paste, for the libraries that it is about."""

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from clients.support import serving
from tests.support.commands import make_files
from tests.support.corpus import write_corpus
from tests.support.documents import (
    NOTES,
    Example,
    chatting,
    examples,
    printed,
    run_program,
    save_files,
    write_workplace,
)
from tests.support.project import ROOT

PYTHON = [e for e in examples() if e.language == "python" and e.reason is None]
GUIDES = [e for e in PYTHON if e.imports & {"apsw", "chromadb", "qdrant_client"}]


@pytest.mark.parametrize("example", PYTHON, ids=[e.where for e in PYTHON])
def test_an_example_works(server: str, tmp_path: Path, example: Example) -> None:
    write_workplace(tmp_path)
    save_files(tmp_path, server)
    make_files(example, tmp_path, server)
    with chatting() as (chat, asked):
        said = run_program(example.at(server, chat), tmp_path)
    for wanted in printed(example):
        assert wanted in said
    if "chat.completions" in example.code:
        (prompt,) = asked
        assert NOTES["returns.md"].split(".")[0] in prompt  # the note with the answer was found
        assert NOTES["kitchen.md"] not in prompt


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path]]:
    """The URL of a server with a fast model, and a folder with real texts."""
    folder = tmp_path_factory.mktemp("corpus")
    write_corpus(folder)
    write_model = [ROOT / ".venv/bin/python", "-m", "tests.support.corpus", folder]
    subprocess.run(write_model, cwd=ROOT, check=True)
    with serving("--models", str(folder / "models.toml")) as url:
        save_files(folder, url)
        yield url, folder


@pytest.mark.timeout(600)
@pytest.mark.parametrize("example", GUIDES, ids=[e.where for e in GUIDES])
def test_a_guide_holds_on_texts_as_they_are_and_when_it_is_run_again(
    corpus: tuple[str, Path], example: Example
) -> None:
    url, folder = corpus
    with chatting() as (chat, asked):
        first, again = (run_program(example.at(url, chat), folder) for _ in range(2))
    assert first == again
    assert "notes/" in first
    assert len(set(asked)) <= 1


@pytest.mark.parametrize("example", GUIDES, ids=[e.where for e in GUIDES])
def test_a_guide_holds_where_there_are_no_notes(
    server: str, tmp_path: Path, example: Example
) -> None:
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "empty.md").touch()
    save_files(tmp_path, server)
    with chatting() as (chat, _):
        run_program(example.at(server, chat), tmp_path)


def test_they_are_about_many_clients() -> None:
    assert {example.page for example in PYTHON} >= {
        *("README.md", "openai.md", "langchain.md", "llama-index.md", "ollama.md", "api.md"),
        *("rag.md", "search.md", "clustering.md", "prompts.md", "migrating.md"),
    }
    assert {"chromadb", "qdrant_client", "sqlite_vec"} <= {
        name for example in PYTHON for name in example.imports
    }
