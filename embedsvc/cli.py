"""The command line."""

import argparse
import sys
from collections.abc import Sequence

from embedsvc import __version__
from embedsvc.commands import (
    bench,
    completion,
    convert,
    doctor,
    embed,
    load,
    models,
    ps,
    pull,
    reload,
    rm,
    search,
    serve,
    service,
    similarity,
    status,
    unload,
    verify,
)
from embedsvc.commands.arguments import describe
from embedsvc.errors import SetupError

COMMANDS = {
    "serve": (serve, "serve the models of a cards file"),
    "embed": (embed, "write the vectors of files, folders or lines to a file"),
    "search": (search, "search what embed wrote"),
    "similarity": (similarity, "compare texts"),
    "ps": (ps, "list the models that a running server has loaded"),
    "load": (load, "have a running server load a model"),
    "unload": (unload, "have a running server unload a model"),
    "reload": (reload, "have a running server read its cards file anew"),
    "status": (status, "say whether a running server is well"),
    "models": (models, "list the cards, and what of each is on this disk"),
    "pull": (pull, "download models, or what is new of them"),
    "rm": (rm, "delete models that were downloaded"),
    "bench": (bench, "measure a running server, this one or any other"),
    "convert": (convert, "write a model in another precision, and print what that costs"),
    "doctor": (doctor, "say what is here, what is wrong with it, and what would help"),
    "service": (service, "have launchd or systemd keep a server running"),
    "verify": (verify, "check that a model computes what it should on this machine"),
    "completion": (completion, "print what a shell needs to complete these commands"),
}
EXAMPLES = """\
  embedsvc serve
  embedsvc embed reviews.jsonl --column body --output reviews.parquet
  embedsvc similarity "a cat on a mat" "a kitten on a rug"

An OpenAI-compatible embedding server for one machine. `embedsvc COMMAND --help` has more.
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run `embedsvc`; the exit code is 0, 2 for wrong usage, or a `SetupError`'s own."""
    given = _parser().parse_args(arguments)
    try:
        return COMMANDS[given.command][0].run(given)
    except KeyboardInterrupt:  # before it served
        return 130
    except SetupError as error:
        print(f"embedsvc: {error}", file=sys.stderr)
        return error.exit_code


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="embedsvc")
    parser.add_argument("--version", action="version", version=f"embedsvc {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for name, (module, text) in COMMANDS.items():
        command = commands.add_parser(name, help=text, allow_abbrev=False)
        module.add(command)
        describe(command, module.EXAMPLES)
    commands.choices["completion"].set_defaults(program=parser)
    describe(parser, EXAMPLES)
    return parser
