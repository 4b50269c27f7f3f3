"""`embedsvc report`: what this machine is and how fast it embeds, to be shown to others."""

import argparse
import os
import signal
import sys
from collections.abc import Generator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import get_args

import msgspec

from embedsvc.catalog.cards import Card
from embedsvc.checkpoints.sources import find_checkpoint
from embedsvc.commands.cards import add_cards
from embedsvc.commands.model_options import card_named
from embedsvc.commands.table import write_table
from embedsvc.diagnosis.report import Model, Report
from embedsvc.diagnosis.report.facts import backend, this_machine, versions
from embedsvc.diagnosis.report.measure import Clock, Options, measure
from embedsvc.diagnosis.report.private import Hiding
from embedsvc.diagnosis.report.processes import running, verified
from embedsvc.diagnosis.report.written import about_machine, about_model, in_markdown, notes
from embedsvc.errors import CardsError, SetupError
from embedsvc.exits import EXIT_BAD, EXIT_INTERRUPTED
from embedsvc.inference.device import open_device
from embedsvc.settings import BackendChoice

EXAMPLES = """\
  embedsvc report --quick
  embedsvc report --model bge-m3 --markdown report.md
  embedsvc report --model ./my-model --json report.json

Two minutes a model, or with --quick 20 seconds, on a service of its own. The models are on this
disk already (embedsvc pull). Names of people, machines, folders and private models are left out.
The exit code is 1 if something is wrong. Ctrl-C ends it with what it has.
"""
LONGEST_WINDOW = 60.0
LONGEST_TEXT_SECONDS, QUICK_TEXT_SECONDS = 20.0, 5.0
CLOCK = Clock()
STDOUT = Path("-")


def add(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    option = parser.add_argument
    option(
        "--model",
        action="append",
        metavar="M",
        help="measure this one, too: id or alias of a card, or a folder; default: the first card",
    )
    add_cards(parser)
    option("--backend", choices=get_args(BackendChoice), default="auto", help="what computes")
    option("--quick", action="store_true", help="leave out pauses of more than a second")
    option("--seconds", type=float, default=2.0, metavar="S", help="of each kind of load")
    for what, form in {"--json": "JSON", "--markdown": "Markdown, for an issue"}.items():
        text = f"write {form}, or with - to standard output in place of tables; default: nowhere"
        option(what, type=Path, metavar="FILE", help=text)


def run(args: argparse.Namespace) -> int:
    """Measure and print. Returns 1 if something is wrong. Raises `SetupError`."""
    if not 0 < args.seconds <= LONGEST_WINDOW:
        raise CardsError(f"report: --seconds is above 0 and at most {LONGEST_WINDOW:g}")
    for file in (args.json, args.markdown):
        _check_writable(file)
    named = [card_named(name, args.models) for name in (None, *(args.model or ()))]
    cards = list({card.id: card for card in named}.values())
    hiding = Hiding(cards)
    device = open_device(args.backend)
    device.close()
    report = Report(versions(), this_machine(), backend(device.ops), quick=args.quick)
    try:
        with _ended_alike():
            for card in cards:
                report.models.append(Model(hiding.name(card)))
                _report_on(card, report, hiding, args)
    except KeyboardInterrupt:
        report.interrupted = True
    _write(report, args)
    if report.interrupted:
        return EXIT_INTERRUPTED
    return EXIT_BAD if any(model.wrong for model in report.models) else 0


@contextmanager
def _ended_alike() -> Generator[None]:
    """A context that SIGTERM and a closed terminal end as Ctrl-C does, so that no server is left
    behind."""
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGHUP)}
    heard = [number for number, handler in before.items() if handler != signal.SIG_IGN]
    for number in heard:  # what is ignored, as by nohup, stays so
        signal.signal(number, signal.default_int_handler)
    try:
        yield
    finally:
        for number in heard:
            signal.signal(number, before[number])


def _report_on(card: Card, report: Report, hiding: Hiding, args: argparse.Namespace) -> None:
    """Fill the part of the model that was added last. What fails is said there."""
    model, on_device = report.models[-1], report.backend.name == "mlx"
    longest = QUICK_TEXT_SECONDS if args.quick else LONGEST_TEXT_SECONDS
    options = Options(args.quick, args.seconds, longest)
    try:
        public = msgspec.structs.replace(card, id=model.name)
        folder = find_checkpoint(public, download=False)
        _tell(f"{model.name}: times")
        with running(public, folder, args.backend) as server:
            measure(server, model, options, on_device=on_device, clock=CLOCK)
        _tell(f"{model.name}: parity")
        with closing(verified(public, folder, args.backend)) as checks:
            for each in checks:
                model.parity.append(msgspec.structs.replace(each, found=hiding.hide(each.found)))
    except SetupError as error:
        model.error = hiding.hide(str(error))


def _check_writable(file: Path | None) -> None:
    """Raise `CardsError` if a report cannot be written there: now, not when it is measured."""
    if file is None or file == STDOUT:
        return
    if file.is_dir() or not os.access(file if file.exists() else file.parent, os.W_OK):
        raise CardsError(f"report: {file} cannot be written")


def _write(report: Report, args: argparse.Namespace) -> None:
    encoded = msgspec.json.format(msgspec.json.encode(report)).decode() + "\n"
    written = [(args.json, encoded), (args.markdown, in_markdown(report))]
    if STDOUT not in (args.json, args.markdown):
        _write_tables(report)
    for file, text in written:
        if file == STDOUT:
            print(text, end="")
        elif file is not None:
            file.write_text(text, encoding="utf-8")


def _write_tables(report: Report) -> None:
    title, *rest = about_machine(report)
    write_table(title, rest)
    for model in report.models:
        print()
        write_table((model.name, ""), about_model(model))
    for note in notes(report):
        print(f"\n{note}")


def _tell(what: str) -> None:
    """Say on a terminal what is done now."""
    if sys.stderr.isatty():
        print(what, file=sys.stderr)
