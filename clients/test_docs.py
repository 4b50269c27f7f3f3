"""What the documentation tells people to paste, for the libraries that it is about."""

from pathlib import Path

import pytest

from tests.documents import NOTES, Example, chatting, examples, write_workplace

PYTHON = [e for e in examples() if e.language == "python" and e.reason is None]


@pytest.mark.parametrize("example", PYTHON, ids=[e.where for e in PYTHON])
def test_an_example_works(
    server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, example: Example
) -> None:
    write_workplace(tmp_path)
    monkeypatch.chdir(tmp_path)
    with chatting() as (chat, asked):
        code = compile(example.at(server, chat), example.where, "exec")
        exec(code, {})  # noqa: S102 - our own pages
    if "chat.completions" in example.code:
        (prompt,) = asked
        assert NOTES["returns.md"].split(".")[0] in prompt  # what answers it was found
        assert NOTES["kitchen.md"] not in prompt


def test_they_are_about_many_clients() -> None:
    assert {example.page for example in PYTHON} >= {
        *("README.md", "openai.md", "langchain.md", "llama-index.md", "ollama.md", "api.md"),
        *("rag.md", "search.md", "clustering.md", "prompts.md", "migrating.md"),
    }
    assert {"chromadb", "qdrant_client", "sqlite_vec"} <= {
        name for example in PYTHON for name in example.imports
    }
