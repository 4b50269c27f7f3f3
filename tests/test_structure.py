"""How the tests are kept: a file for each module, helpers apart, and data of a test's own."""

import ast
import re
from fnmatch import fnmatch
from functools import cache
from pathlib import Path

from tests.support.project import ROOT, modules

FOLDERS = ("tests", "extras", "clients", "browser")
FILES = [
    file
    for folder in FOLDERS
    for file in sorted((ROOT / folder).rglob("*.py"))
    if "node_modules" not in file.parts
]
FROM_OUTSIDE = {
    # Load on a server, by `embedsvc bench`.
    "bench.*": "test_bench",
    # Files in, files out, by a whole run.
    "bulk.answer": "test_bulk_remote",
    "bulk.arrow": "test_bulk_outputs",
    "bulk.batches": "test_bulk_run",
    "bulk.embedder": "test_embed",
    "bulk.inputs.delimited": "test_bulk_tables",
    "bulk.inputs.*": "test_bulk_inputs",
    "bulk.outputs.*": "test_bulk_outputs",
    "bulk.pipeline": "test_bulk_run",
    "catalog.toml_document": "test_cards",
    # Parts of opening a checkpoint.
    "checkpoints.file_kinds": "test_checkpoint_files",
    "checkpoints.jinja_parts": "test_pair_template",
    "checkpoints.modules": "test_modules",
    "checkpoints.prompts": "test_transformer_settings",
    "checkpoints.progress": "test_download",
    "checkpoints.steps": "test_modules",
    "checkpoints.token_limit": "test_checkpoint",
    # Commands, as they are typed.
    "commands.bench": "test_bench",
    "commands.cards": "test_names",
    "commands.completion": "test_completion",
    "commands.convert": "test_convert",
    "commands.doctor": "test_doctor",
    "commands.embed*": "test_embed",
    "commands.load": "test_commands",
    "commands.model_options": "test_verify",
    "commands.models": "test_hub",
    "commands.pull": "test_hub",
    "commands.reload": "test_commands",
    "commands.rm": "test_hub",
    "commands.rerank": "test_rank",
    "commands.search": "test_search",
    "commands.serve": "test_server",
    "commands.settings": "test_settings",
    "commands.similarity": "test_search",
    "commands.status": "test_commands",
    "commands.table": "test_commands",
    "commands.unload": "test_commands",
    "commands.verify": "test_verify",
    "diagnosis.*": "test_doctor",
    # Files that are lines of a table: each is a case of one test.
    "inference.heads.*": "test_heads",
    "inference.models.*": "test_architectures",
    "inference.ops.hardware": "test_device",
    "inference.ops.mlx.*": "test_mlx",
    "inference.ops.numpy.*": "test_ops",
    "inference.ops.table_limits": "test_table_limits",
    "serving.embed_request": "test_dialects",
    "serving.chunked": "test_late_chunking",
    "serving.room": "test_model_memory",
    "serving.watchdog": "test_watchdog",
    "system.kept": "test_tuning_file",
    "system.streams": "test_command_line",
    "texts.frame": "test_pairs",
    "texts.long_text": "test_long_texts",
    # HTTP, by requests.
    "web.admin.health": "test_app",
    "web.sparse_answers": "test_sparse_routes",
    "web.bodies.*": "test_bodies",
    "web.connections.connection": "test_limits",
    "web.connections.protocol": "test_offers",
    "web.connections.tls": "test_shutdown",
    "web.dialects.dialect": "test_openapi",
    "web.dialects.exo*": "test_exo",
    "web.dialects.infinity": "test_rerank",
    "web.dialects.openai": "test_app",
    "web.dialects.rerank": "test_rerank",
    "web.dialects.rerank_texts": "test_rerank",
    "web.dialects.tei_error": "test_error_messages",
    "web.dialects.tei_scores": "test_scores",
    "web.embedding": "test_dialects",
    "web.middleware": "test_middleware",
    "web.server": "test_server",
    "web.state": "test_app",
    "wording.field_docs": "test_pages",
}
"""Modules that no test imports, since they are tried by what they do for others; and where."""


def imported(file: Path) -> set[str]:
    """What a file imports: modules, and names that may be modules."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {each.name for each in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module, *(f"{node.module}.{each.name}" for each in node.names)}
    return names


def has_code(file: Path) -> bool:
    """Whether there is more in a module than what it is for."""
    body = ast.parse(file.read_text(encoding="utf-8")).body
    return any(not isinstance(node, ast.Expr) for node in body)


@cache
def untested() -> set[str]:
    """The modules that no test imports, without the package's name."""
    tested = set().union(*(imported(file) for file in FILES if file.name.startswith("test_")))
    with_code = {name for name, file in modules().items() if has_code(file)}
    return {name.partition(".")[2] for name in with_code - tested}


def test_every_module_has_a_test_file_that_imports_it_or_is_named_here() -> None:
    unknown = {name for name in untested() if not any(fnmatch(name, each) for each in FROM_OUTSIDE)}
    assert not unknown


def test_what_is_named_here_is_needed_and_is_there() -> None:
    needed = {each for each in FROM_OUTSIDE if any(fnmatch(name, each) for name in untested())}
    assert needed == set(FROM_OUTSIDE)
    assert all((ROOT / f"tests/{name}.py").exists() for name in FROM_OUTSIDE.values())


def test_no_file_imports_from_a_test_file_or_from_fixtures() -> None:
    """What several need is in a support module."""
    ours = re.compile(rf"({'|'.join(FOLDERS)})\.(.*\.)?(conftest|test_\w+)")
    found = {file: [name for name in imported(file) if ours.fullmatch(name)] for file in FILES}
    assert not {str(file): names for file, names in found.items() if names}


def test_no_random_numbers_are_drawn_from_what_a_whole_file_shares() -> None:
    """What a test drew would depend on which tests ran before it."""
    shared = re.compile(
        r"^\w+(: .*)? = \S*(default_rng|Random|RandomState)\([^()]*\)$", re.MULTILINE
    )
    assert not [file for file in FILES if shared.search(file.read_text(encoding="utf-8"))]
