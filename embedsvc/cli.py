"""The command line."""

import argparse
import gc
import sys
from collections.abc import Sequence
from importlib import import_module
from typing import Any

from embedsvc import __version__
from embedsvc.commands.arguments import Parser, complete_help
from embedsvc.errors import ServiceError, SetupError
from embedsvc.exits import EXIT_BAD, EXIT_INTERRUPTED, EXIT_PIPE
from embedsvc.system.streams import complain, end_output, open_streams
from embedsvc.wording.plain import in_line, in_lines

COMMANDS = {
    "serve": "serve the models of a cards file",
    "embed": "write the vectors of files, folders or lines to a file",
    "search": "search what embed wrote",
    "rerank": "put texts in the order in which they answer a question",
    "similarity": "compare texts",
    "ps": "list the models that a running server has loaded",
    "load": "have a running server load a model",
    "unload": "have a running server unload a model",
    "reload": "have a running server read its cards file anew",
    "status": "say whether a running server is well",
    "models": "list the cards, and what of each is on this disk",
    "pull": "download models, or what is new of them",
    "rm": "delete models that were downloaded",
    "bench": "measure a running server, this one or any other",
    "convert": "write a model in another precision, and print what that costs",
    "doctor": "say what is here, what is wrong with it, and what would help",
    "report": "measure this machine, to be shown to others: nothing in it tells who you are",
    "service": "have launchd or systemd keep a server running",
    "try": "say whether a model would load, before it is downloaded, and print its card",
    "verify": "check that a model computes what it should on this machine",
    "completion": "print what a shell needs to complete these commands",
}
"""The commands and what they do. Each is a module of `embedsvc.commands`, imported when it is
used."""
MODULES = {"try": "try_checkpoint"}
"""Commands whose names are words of Python, which no module can be called."""
EXAMPLES = """\
  embedsvc serve
  embedsvc embed reviews.jsonl --column body --output reviews.npy
  embedsvc similarity "a cat on a mat" "a kitten on a rug"

An OpenAI-compatible embedding server for one machine. `embedsvc COMMAND --help` has more.
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run `embedsvc`. Returns an exit code, one of `exits.EXITS`."""
    open_streams()
    try:
        return _run(sys.argv[1:] if arguments is None else arguments)
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED
    except BrokenPipeError:  # the program that reads the output has read enough
        return EXIT_PIPE
    except SetupError as error:
        # The messages of systemctl and launchctl have several lines.
        worded = in_lines if isinstance(error, ServiceError) else in_line
        complain(f"embedsvc: {worded(str(error))}")
        return error.exit_code
    except OSError as error:  # the disk is full, or a file is gone
        complain(f"embedsvc: {in_line(str(error))}")
        return EXIT_BAD
    finally:
        end_output()


def _run(arguments: Sequence[str]) -> int:
    try:
        args = _parser(arguments).parse_args(arguments)
    finally:
        sys.stdout.flush()  # so that help that nobody reads is no error
    if not gc.isenabled():
        gc.freeze()  # what was imported, which stays
        gc.enable()
    code: int = _command(args.command).run(args)
    sys.stdout.flush()
    return code


def _parser(arguments: Sequence[str]) -> argparse.ArgumentParser:
    """The parser. Only commands in the arguments get their options: importing all takes long.

    With `completion`, all get theirs.
    """
    parser = Parser(prog="embedsvc")
    parser.add_argument("--version", action="version", version=f"embedsvc {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for name, text in COMMANDS.items():
        command = commands.add_parser(name, help=text, allow_abbrev=False)
        if name in arguments or "completion" in arguments:
            module = _command(name)
            module.add(command)
            complete_help(command, module.EXAMPLES)
    commands.choices["completion"].set_defaults(program=parser)
    complete_help(parser, EXAMPLES)
    return parser


def _command(name: str) -> Any:
    return import_module(f"embedsvc.commands.{MODULES.get(name, name)}")
