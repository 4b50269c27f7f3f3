"""One run of `embedsvc embed`, from the inputs to the finished output."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import numpy as np

from embedsvc.bulk.batches import BatchReader, check_first_rows
from embedsvc.bulk.dtypes import Stored, store
from embedsvc.bulk.embedder import Embedder, probe
from embedsvc.bulk.inputs.source import Format, Identity, Source, find_sources
from embedsvc.bulk.journal import Header, Journal, Record
from embedsvc.bulk.manifest import EmbedOptions, Manifest, encode_probe
from embedsvc.bulk.outputs import output_for
from embedsvc.bulk.outputs.files import beside, check_own_files, own_files, remove, replacing
from embedsvc.bulk.outputs.index import Vectors
from embedsvc.bulk.pipeline import EmbeddedBatch, Embedding, Pipeline, Totals
from embedsvc.bulk.progress import Progress
from embedsvc.bulk.rows import BadRow, Columns
from embedsvc.errors import BulkError
from embedsvc.system.text_files import printable
from embedsvc.telemetry.logs import within_line

MAX_SHOWN = 10
"""How many bad rows are shown as they are met. The file of rejects has all of them."""


class Job(msgspec.Struct, frozen=True, kw_only=True):
    """What `embedsvc embed` is to do: inputs, output, and options."""

    inputs: tuple[str, ...]
    output: Path
    format: Format | None = None
    delimiter: str | None = None
    quote: str | None = None
    header: bool = True
    columns: Columns = Columns()
    options: EmbedOptions = EmbedOptions()
    dtype: Stored = "float32"
    strict: bool = False
    """Whether the first bad row ends the run."""
    overwrite: bool = False


class Summary(NamedTuple):
    """What was done, by this run and by those that it resumed."""

    manifest: Manifest
    before: Record
    """The counts when this run began."""
    after: Record
    """The counts at its end."""
    totals: Totals
    """Sums over this run alone."""


class Run:
    """A run of a job, which goes on where the last one ended. To be used in `with`."""

    def __init__(self, job: Job, progress: Progress) -> None:
        """Look at the inputs and open the journal, before a model is loaded. Raises `BulkError`."""
        self._job = job
        self._progress = progress
        self._sources = find_sources(
            job.inputs, job.format, job.delimiter, job.quote, header=job.header
        )
        self._output = output_for(job.output)
        check_own_files(job.output)
        _keep_apart(self._sources, job.output)
        partial = beside(job.output, "partial")
        if job.output.exists() and not job.overwrite and not partial.exists():
            raise BulkError(f"{job.output} is there already: say --overwrite to replace it")
        self._journal = Journal(partial)
        try:
            check_first_rows(self._sources, job.columns)
        except BulkError:
            self._journal.close(keep=True)
            raise

    def __enter__(self) -> "Run":
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._journal.close(keep=kind is not None)

    async def embed(self, embedder: Embedder) -> Summary:
        """Embed what is still to be embedded. Raises `BulkError`."""
        job, journal, progress = self._job, self._journal, self._progress
        sample = await probe(embedder, job.options)
        manifest = Manifest(
            embedder.model, encode_probe(sample), len(sample), job.dtype, job.options
        )
        journal.begin(
            Header(
                inputs=tuple(map(printable, job.inputs)),
                format=job.format,
                delimiter=job.delimiter,
                quote=job.quote,
                header=job.header,
                columns=job.columns,
                manifest=manifest,
                fingerprint=embedder.fingerprint,
            )
        )
        before = journal.state
        if before.items:
            progress.say(f"going on after {before.items:,} rows that are done")
        batches = BatchReader(self._sources, job.columns)
        pipeline = Pipeline(embedder, job.options)
        reporter = _Reporter(job.strict, progress, batches, before)

        def write(finished: Sequence[EmbeddedBatch]) -> None:
            records: list[Record] = []
            for one in finished:
                reporter.check(one.results)
                last = records[-1] if records else journal.state
                records.append(self._record(one, last))
            journal.append(records)
            reporter.show(journal.state, finished[-1].batch.bytes_read, pipeline.totals.seconds)

        try:
            await pipeline.run(batches, before, write)
        finally:
            batches.close()
        if embedder.fingerprint is None and not manifest.is_same_model(
            await probe(embedder, job.options)
        ):
            journal.undo()
            raise BulkError(
                f"`{manifest.model}` gives other vectors than when the run began: "
                "what this run has done is dropped"
            )
        manifest = msgspec.structs.replace(manifest, rows=journal.state.rows)
        return Summary(manifest, before, journal.state, pipeline.totals)

    def write_output(self, manifest: Manifest) -> None:
        """Write the output and the file of rejects, from the journal. Raises `BulkError`."""
        self._output.write(self._job.output, self._data, manifest)
        rejects = beside(self._job.output, "rejects.jsonl")
        if not self._journal.state.rejected:
            remove(rejects)
            return
        with replacing(rejects) as file:
            for record in self._journal.records():
                for bad in record.bad:
                    raw = {"row": msgspec.Raw(bad.row), "id": msgspec.Raw(bad.id)}  # JSON already
                    file.write(msgspec.json.encode(bad._asdict() | raw) + b"\n")

    def _record(self, finished: EmbeddedBatch, last: Record) -> Record:
        """The record of a batch, after the record before it."""
        results = finished.results
        rows, vectors = _rows(results, self._job.dtype)
        bad = tuple(result for result in results if isinstance(result, BadRow))
        return Record(
            items=last.items + len(results),
            digest=finished.batch.digest,
            rows=last.rows + len(rows),
            rejected=last.rejected + len(bad),
            bad=bad,
            data=self._output.encode(rows, vectors) if rows else b"",
        )

    def _data(self) -> Iterator[bytes]:
        """The encoded rows of all records. Raises `BulkError` if some are missing."""
        rows = 0
        for record in self._journal.records():
            rows = record.rows
            if record.data:
                yield record.data
        if rows != self._journal.state.rows:
            raise BulkError(f"{self._journal.path}: damaged on disk; delete it to begin anew")


def _keep_apart(sources: Sequence[Source], output: Path) -> None:
    """Exclude files that the run writes from folders. Raises `BulkError` if one is an input."""
    own = own_files(output)
    for source in sources:
        for path in own:
            if source.identity == _identity(path):
                raise BulkError(f"{source.name} is an input, and the run would write it: {path}")
        source.excluded = lambda: frozenset(found for path in own if (found := _identity(path)))


def _identity(path: Path) -> Identity | None:
    """The device and the inode of a file; None if it is not there."""
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino


def _rows(
    results: Sequence[Embedding | BadRow], dtype: Stored
) -> tuple[list[dict[str, Any]], Vectors]:
    """The rows of the output, and their vectors as they are stored; none in place of (0, D)."""
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
    dense = [one.vectors for one in done if isinstance(one.vectors, np.ndarray)]
    if dense:
        return rows, store(np.concatenate(dense), dtype)
    return rows, [vector._asdict() for one in done for vector in one.vectors]


class _Reporter:
    """Reports bad rows and progress."""

    def __init__(
        self, strict: bool, progress: Progress, batches: BatchReader, before: Record
    ) -> None:
        self._strict = strict
        self._progress = progress
        self._batches = batches
        self._before = before
        self._bad = 0

    def check(self, results: Sequence[Embedding | BadRow]) -> None:
        """Report bad rows. Raises `BulkError` for the first one if the job is strict."""
        for result in results:
            if not isinstance(result, BadRow):
                continue
            message = within_line(f"{result.file}:{result.line}: {result.reason}")
            if self._strict:
                raise BulkError(message)
            self._bad += 1
            if self._bad <= MAX_SHOWN:
                self._progress.say(message)
            elif self._bad == MAX_SHOWN + 1:
                self._progress.say("and more, which the file of rejects will have")

    def show(self, state: Record, read: int, seconds: float) -> None:
        """Show how far the run is, after `read` bytes of the inputs."""
        total = self._batches.total_bytes
        share = min(read / total, 1.0) if total else None
        self._progress.update(state.items, state.rejected, share, seconds, self._before.items)
