"""A report in words: rows for a table, and a Markdown block to paste into an issue."""

from collections.abc import Iterator, Mapping

import msgspec

from embedsvc.diagnosis.report import Load, Model, Report
from embedsvc.wording.quantities import bytes_in_words

MARKS = {True: "ok", False: "WRONG", None: "-"}
Row = tuple[str, str]


def about_machine(report: Report) -> list[Row]:
    """What the machine is."""
    machine, backend, versions = report.machine, report.backend, dict(report.versions)
    cores = f"{machine.usable_cores} of {machine.cores}"
    if machine.fast_cores is not None:
        cores += f", {machine.fast_cores} fast and {machine.slow_cores or 0} slow"
    model = f", {machine.model}" if machine.model else ""
    translated = ", Python translated by Rosetta" if machine.translated else ""
    memory = _gib(machine.memory_bytes)
    if machine.usable_memory_bytes < machine.memory_bytes:
        memory += f", {_gib(machine.usable_memory_bytes)} for this process"
    unused = [("GPU", f"not used: {backend.unused_gpu}")] if backend.unused_gpu else []
    return [
        ("embedsvc", versions.pop("embedsvc")),
        ("processor", f"{machine.processor}{model}, {machine.architecture}{translated}"),
        ("cores", cores),
        ("memory", memory),
        ("system", machine.system),
        ("versions", ", ".join(f"{name} {version}" for name, version in versions.items())),
        ("backend", f"{backend.name}, {backend.dtype}, on {backend.device}"),
        *unused,
        ("for models", f"{_gib(backend.models_bytes)} of {_gib(backend.memory_bytes)}"),
    ]


def about_model(model: Model) -> list[Row]:
    """What was found out about a model."""
    return list(_about_model(model))


def notes(report: Report) -> list[str]:
    """What readers should know of the report itself."""
    found = {"quick: without pauses of more than a second": report.quick}
    found["interrupted, so that something is missing"] = report.interrupted
    return [note for note, true in found.items() if true]


def in_markdown(report: Report) -> str:
    """The report as a block for an issue, with its JSON folded away."""
    lines = ["### embedsvc report", "", *_table(about_machine(report))]
    for model in report.models:
        lines += ["", f"#### {_cell(model.name)}", "", *_table(about_model(model))]
    for note in notes(report):
        lines += ["", f"{note}."]
    encoded = msgspec.json.encode(report).decode()
    lines += [
        "",
        "<details><summary>JSON</summary>",
        "",
        "```json",
        encoded,
        "```",
        "",
        "</details>",
    ]
    return "\n".join(lines) + "\n"


def _about_model(model: Model) -> Iterator[Row]:
    if model.architecture is not None:
        weights = bytes_in_words(model.weights_bytes or 0)
        size = f"{model.dimensions} dimensions, {model.max_tokens} tokens, {weights} of weights"
        yield "model", f"{model.architecture}, {size}"
    if model.load_seconds is not None:
        yield "load", f"{model.load_seconds:.2f} s"
    if model.first_vector_milliseconds is not None:
        yield "first vector", f"{model.first_vector_milliseconds:.1f} ms"
    for pause in model.pauses:
        computing = f"{pause.computing_milliseconds:.1f} of them computing"
        what = f"one text after {pause.after_seconds:g} s"
        yield what, f"{pause.milliseconds:.1f} ms, {computing}"
    for load in model.loads:
        yield load.shape, _load(load)
    if model.longest is not None:
        longest = model.longest
        cut = f" of {longest.of_tokens}" if longest.tokens < longest.of_tokens else ", the most"
        yield "longest text", f"{longest.tokens} tokens{cut}: {longest.seconds:.2f} s"
    if model.memory:
        yield "memory", _memory({when: use.process for when, use in model.memory.items()})
    if any(use.device is not None for use in model.memory.values()):
        yield "MLX's memory", _memory({when: use.device for when, use in model.memory.items()})
    for parity in model.parity:
        yield parity.check, f"{MARKS[parity.passed]}: {parity.found}"
    if model.error is not None:
        yield "ERROR", model.error


def _gib(size: int) -> str:
    """Bytes of a machine's memory, whose makers count in powers of two.

    >>> _gib(8 << 30)
    '8.0 GiB'
    """
    return f"{size / 2**30:.1f} GiB"


def _load(load: Load) -> str:
    latency = f"p50 {load.p50_milliseconds:.1f} ms, p99 {load.p99_milliseconds:.1f} ms"
    wrong = f", {load.errors} WRONG" if load.errors else ""
    rates = f"{load.texts_per_second:,.0f} texts/s, {load.tokens_per_second:,.0f} tokens/s"
    return f"{rates}, {latency}{wrong}"


def _memory(uses: Mapping[str, int | None]) -> str:
    return ", ".join(
        f"{'?' if use is None else bytes_in_words(use)} {when}" for when, use in uses.items()
    )


def _table(rows: list[Row]) -> Iterator[str]:
    yield "| what | found |"
    yield "|---|---|"
    for what, found in rows:
        yield f"| {_cell(what)} | {_cell(found)} |"


def _cell(text: str) -> str:
    """A text that cannot end the cell, nor begin anything else."""
    for special in "\\|`<>*_[]":
        text = text.replace(special, f"\\{special}")
    return " ".join(text.split())
