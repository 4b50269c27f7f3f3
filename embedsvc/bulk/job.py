"""One run of `embedsvc embed`, from the inputs to the finished output."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import numpy as np

from embedsvc.bulk.batches import Blocks, check_beginnings
from embedsvc.bulk.dtypes import Stored, store
from embedsvc.bulk.embedder import Embedder, probe
from embedsvc.bulk.inputs.source import Format, Identity, Source, find_sources
from embedsvc.bulk.journal import Job, Partial, Record
from embedsvc.bulk.manifest import About, How, fingerprint_of
from embedsvc.bulk.outputs import output_for
from embedsvc.bulk.outputs.files import beside, check_own_files, own_files, remove, replacing
from embedsvc.bulk.pipeline import Embedding, Finished, Pipeline, Totals
from embedsvc.bulk.progress import Progress
from embedsvc.bulk.rows import Bad, Columns
from embedsvc.errors import BulkError
from embedsvc.system.text_files import printable
from embedsvc.telemetry.logs import within_line

SHOWN = 10
"""Bad rows that are shown as they are met; the file of them has all."""


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """What is to be done."""

    inputs: tuple[str, ...]
    output: Path
    format: Format | None = None
    delimiter: str | None = None
    quote: str | None = None
    header: bool = True
    columns: Columns = Columns()
    how: How = How()
    dtype: Stored = "float32"
    strict: bool = False
    """Whether the first bad row ends the run."""
    overwrite: bool = False


class Summary(NamedTuple):
    """What was done, by this run and those it went on from."""

    about: About
    before: Record
    """State when this run began."""
    after: Record
    totals: Totals
    """Of this run."""


class Run:
    """A run that goes on where the last one ended. To be used in `with`."""

    def __init__(self, plan: Plan, progress: Progress) -> None:
        """Raises `BulkError` if there is something in the way, before a model is loaded."""
        self._plan = plan
        self._progress = progress
        self._sources = find_sources(
            plan.inputs, plan.format, plan.delimiter, plan.quote, header=plan.header
        )
        self._output = output_for(plan.output)
        check_own_files(plan.output)
        _keep_apart(self._sources, plan.output)
        partial = beside(plan.output, "partial")
        if plan.output.exists() and not plan.overwrite and not partial.exists():
            raise BulkError(f"{plan.output} is there already: say --overwrite to replace it")
        self._partial = Partial(partial)
        try:
            check_beginnings(self._sources, plan.columns)
        except BulkError:
            self._partial.close(keep=True)
            raise

    def __enter__(self) -> "Run":
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._partial.close(keep=kind is not None)

    async def embed(self, embedder: Embedder) -> Summary:
        """Embed what is still to be embedded. Raises `BulkError`."""
        plan, partial, progress = self._plan, self._partial, self._progress
        sample = await probe(embedder, plan.how)
        about = About(embedder.model, fingerprint_of(sample), len(sample), plan.dtype, plan.how)
        partial.begin(
            Job(
                inputs=tuple(map(printable, plan.inputs)),
                format=plan.format,
                delimiter=plan.delimiter,
                quote=plan.quote,
                header=plan.header,
                columns=plan.columns,
                about=about,
                fingerprint=embedder.fingerprint,
            )
        )
        before = partial.state
        if before.items:
            progress.say(f"going on after {before.items:,} rows that are done")
        blocks = Blocks(self._sources, plan.columns)
        pipeline = Pipeline(embedder, plan.how)
        reporter = _Reporter(plan.strict, progress, blocks, before)

        def write(finished: Sequence[Finished]) -> None:
            records: list[Record] = []
            for one in finished:
                reporter.check(one.results)
                last = records[-1] if records else partial.state
                records.append(self._record(one, last))
            partial.append(records)
            reporter.show(partial.state, finished[-1].block.read, pipeline.totals.seconds)

        try:
            await pipeline.run(blocks, before, write)
        finally:
            blocks.close()
        if embedder.fingerprint is None and not about.is_by(await probe(embedder, plan.how)):
            partial.undo()
            raise BulkError(
                f"`{about.model}` gives other vectors than when the run began: "
                "what this run has done is dropped"
            )
        about = msgspec.structs.replace(about, rows=partial.state.rows)
        return Summary(about, before, partial.state, pipeline.totals)

    def finish(self, about: About) -> None:
        """Put together the output, and the file of rejects. Raises `BulkError`."""
        self._output.finish(self._plan.output, self._data, about)
        rejects = beside(self._plan.output, "rejects.jsonl")
        if not self._partial.state.rejected:
            remove(rejects)
            return
        with replacing(rejects) as file:
            for record in self._partial.records():
                for bad in record.bad:
                    told = bad._asdict() | {"row": msgspec.Raw(bad.row), "id": msgspec.Raw(bad.id)}
                    file.write(msgspec.json.encode(told) + b"\n")

    def _record(self, finished: Finished, last: Record) -> Record:
        results = finished.results
        rows, vectors = _rows(results)
        bad = tuple(result for result in results if isinstance(result, Bad))
        return Record(
            items=last.items + len(results),
            digest=finished.block.digest,
            rows=last.rows + len(rows),
            rejected=last.rejected + len(bad),
            bad=bad,
            data=self._output.encode(rows, store(vectors, self._plan.dtype)) if rows else b"",
        )

    def _data(self) -> Iterator[bytes]:
        rows = 0
        for record in self._partial.records():
            rows = record.rows
            if record.data:
                yield record.data
        if rows != self._partial.state.rows:
            raise BulkError(f"{self._partial.path}: damaged on disk; delete it to begin anew")


def _keep_apart(sources: Sequence[Source], output: Path) -> None:
    """Have folders leave out what the run writes. Raises `BulkError` if that is an input."""
    own = own_files(output)
    for source in sources:
        for path in own:
            if source.identity == _identity(path):
                raise BulkError(f"{source.name} is an input, and the run would write it: {path}")
        source.left_out = lambda: frozenset(found for path in own if (found := _identity(path)))


def _identity(path: Path) -> Identity | None:
    """Of the file, by whatever name it is reached; none if it is not there."""
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino


def _rows(results: Sequence[Embedding | Bad]) -> tuple[list[dict[str, Any]], Any]:
    """The output's rows, and their vectors (n, D)."""
    rows: list[dict[str, Any]] = []
    done = [result for result in results if isinstance(result, Embedding)]
    for row, _, chunks in done:
        whole = {"id": row.id, "text": row.text} | row.kept
        if chunks is None:
            rows.append(whole)
            continue
        for number, chunk in enumerate(chunks):
            where = {"chunk": number, "start": chunk.start, "end": chunk.end}
            rows.append(whole | {"text": row.text[chunk.start : chunk.end]} | where)
    vectors = np.concatenate([one.vectors for one in done]) if done else None
    return rows, vectors


class _Reporter:
    """Tells of bad rows and of progress."""

    def __init__(self, strict: bool, progress: Progress, blocks: Blocks, before: Record) -> None:
        self._strict = strict
        self._progress = progress
        self._blocks = blocks
        self._before = before
        self._bad = 0

    def check(self, results: Sequence[Embedding | Bad]) -> None:
        """Tell of bad rows. Raises `BulkError` if there are not to be any."""
        for result in results:
            if not isinstance(result, Bad):
                continue
            said = within_line(f"{result.file}:{result.line}: {result.reason}")
            if self._strict:
                raise BulkError(said)
            self._bad += 1
            if self._bad <= SHOWN:
                self._progress.say(said)
            elif self._bad == SHOWN + 1:
                self._progress.say("and more, which the file of rejects will have")

    def show(self, state: Record, read: int, seconds: float) -> None:
        """Tell how far it is."""
        total = self._blocks.total
        share = min(read / total, 1.0) if total else None
        self._progress.update(state.items, state.rejected, share, seconds, self._before.items)
