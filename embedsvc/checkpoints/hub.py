"""Repositories from a hub: Hugging Face's, or the one that HF_ENDPOINT names.

What is complete on this disk is used as it is, without asking the hub: a model changes only when
somebody pulls it. Files are downloaded one at a time, and get their names once all of them have
come with the hub's checksums; see `hub_cache` for where they lie.
"""

import errno
import re
import shutil
from collections.abc import Generator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path, PurePosixPath
from threading import Event
from typing import Any

import httpx2
import msgspec
from filelock import Timeout
from huggingface_hub import constants, hf_hub_url
from huggingface_hub.errors import HFValidationError, OfflineModeIsEnabled
from huggingface_hub.utils import WeakFileLock, validate_repo_id

from embedsvc.bounds import CHECKPOINT_JSON, HUB_BYTES, HUB_FILES
from embedsvc.checkpoints import hub_cache
from embedsvc.checkpoints.download import File, fetch, part_of
from embedsvc.checkpoints.hub_cache import COMMIT, NOT_NEEDED
from embedsvc.checkpoints.hub_client import BrokenAnswer, Info, Refused, ask, read_answer
from embedsvc.checkpoints.progress import Progress
from embedsvc.errors import Stopped
from embedsvc.wording.plain import first_line

TORCH = re.compile(r"pytorch_model[^/]*\.bin")
"""Names of torch's own files, which are not downloaded from a folder that has safetensors."""
NEEDED = re.compile(
    r"([^/]+\.(json|txt|model)|artifact\.metadata|(model|weights)[^/]*\.safetensors|"
    rf"adapter_model\.safetensors|sparse_linear\.pt|{TORCH.pattern})"
)
"""Names of the files that are downloaded, whatever folder they are in."""
README = "README.md"
"""Is downloaded too: it says what a model was converted from. That of a folder is not needed."""
PLAIN = re.compile(r"[A-Za-z0-9_][\w.+=@ -]{0,99}", re.ASCII)
"""A part of a path that means the same on every disk and leads nowhere else."""
DEEPEST = 8
"""Folders in each other that a path may have."""
LOCK_SECONDS = 1.0
"""How often a download that waits for another process looks whether it is to stop."""
CONFIG = "config.json"
FAILURES = (BrokenAnswer, Refused, httpx2.HTTPError, HFValidationError, OSError)
"""What asking a hub, and keeping what it answers, may end with."""
CHECKSUM = re.compile("[0-9a-f]{64}|[0-9a-f]{40}")


class HubError(Exception):
    """Why a repository is not here; the message goes on from the repository's name."""


def find(
    repo: str,
    revision: str | None,
    *,
    download: bool = True,
    progress: Progress | None = None,
    stop: Event | None = None,
) -> Path:
    """The folder of a repository, as it is here; downloaded if it is not, and that is allowed.

    Raises `HubError`; `Stopped` once `stop` is set.
    """
    folder = hub_cache.kept(repo, revision)
    if folder is None and not download:
        folder = hub_cache.kept_by_others(repo, revision)
        if folder is None:
            raise HubError("is not on this disk")
    return folder or pull(repo, revision, progress, stop)


def pull(
    repo: str,
    revision: str | None,
    progress: Progress | None = None,
    stop: Event | None = None,
) -> Path:
    """The folder of a repository, as the hub has it now; files that are not here are downloaded.

    Raises `HubError`; `Stopped` once `stop` is set.
    """
    try:
        return _download(repo, revision or constants.DEFAULT_REVISION, progress, stop or Event())
    except FAILURES as error:
        unreachable = isinstance(error, httpx2.TransportError | OfflineModeIsEnabled)
        if unreachable and (folder := hub_cache.kept_by_others(repo, revision)):
            return folder
        raise HubError(_in_words(error, repo, revision)) from None


def look_ahead(repo: str, revision: str | None) -> tuple[dict[str, Any], int]:
    """config.json of a repository, empty if it has none at its root, and the bytes of its weights.

    Nothing is kept of what is downloaded for that. Raises `HubError`.
    """
    try:
        validate_repo_id(repo)
        info = ask(repo, revision or constants.DEFAULT_REVISION, Event())
        files = needed_files(info)
        weights = _size([file for file in files if file.name.endswith((".safetensors", ".bin"))])
        if not any(file.name == CONFIG for file in files):
            return {}, weights
        url = hf_hub_url(repo, CONFIG, revision=info.sha, endpoint=constants.ENDPOINT)
        content = read_answer(url, CHECKPOINT_JSON, Event())
        return msgspec.json.decode(content, type=dict[str, Any]), weights
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        raise HubError(f"has a {CONFIG} that is no JSON object") from None
    except FAILURES as error:
        raise HubError(_in_words(error, repo, revision)) from None


def _download(repo: str, revision: str, progress: Progress | None, stop: Event) -> Path:
    _check_stop(repo, stop)
    validate_repo_id(repo)
    if not hub_cache.is_plain(revision):
        raise HubError("has no such revision: its name is not a plain one")
    info = ask(repo, revision, stop)
    commit = info.sha
    files = needed_files(info)
    if not COMMIT.fullmatch(commit):
        raise HubError(f"is told of by {constants.ENDPOINT} without checksums")
    root = hub_cache.repo_folder(repo)
    blobs = root / "blobs"
    blobs.mkdir(parents=True, exist_ok=True)
    with _locked(root / "embedsvc.lock", repo, stop):
        folder = hub_cache.complete(root, commit)
        if folder is None or not all((folder / file.name).is_file() for file in files):
            _fetch_all(repo, commit, files, blobs, progress, stop)
            folder = hub_cache.link_snapshot(root, commit, files)
        if revision != commit:
            hub_cache.note_revision(root, revision, commit)
        return folder


def needed_files(info: Info) -> list[File]:
    """The files of a commit that are needed.

    Raises `HubError` where what the hub says of them cannot be, or they are too large.
    """
    files = [
        File(each.name, each.size, (each.lfs.sha256 if each.lfs else each.blob) or "")
        for each in info.siblings
        if is_needed(each.name)
    ]
    paths = [PurePosixPath(file.name) for file in files]
    better = {path.parent for path in paths if path.suffix == ".safetensors"}
    files = [
        file
        for file, path in zip(files, paths, strict=True)
        if path.parent not in better or not TORCH.fullmatch(path.name)
    ]
    if any(not CHECKSUM.fullmatch(file.checksum) for file in files):
        raise HubError(f"is told of by {constants.ENDPOINT} without checksums")
    if len({file.name for file in files}) < len(files):
        raise HubError(f"has a file twice, says {constants.ENDPOINT}")
    if len(files) > HUB_FILES or _size(files) > HUB_BYTES:
        raise HubError(
            f"is too large: at most {HUB_FILES} files and {HUB_BYTES >> 30} GiB are downloaded"
        )
    return files


def is_needed(name: str) -> bool:
    """Whether a file of a repository is downloaded: by its name, which has to be a plain one.

    >>> [is_needed(name) for name in ("1_Pooling/config.json", "README.md", "onnx/README.md")]
    [True, True, False]
    >>> [is_needed(name) for name in ("onnx/config.json", "../config.json")]
    [False, False]
    """
    *folders, last = name.split("/")
    if name == README:
        return True
    if len(folders) > DEEPEST or not all(PLAIN.fullmatch(part) for part in (*folders, last)):
        return False
    return NOT_NEEDED.isdisjoint(folders) and NEEDED.fullmatch(last) is not None


def _fetch_all(
    repo: str,
    commit: str,
    files: Sequence[File],
    blobs: Path,
    progress: Progress | None,
    stop: Event,
) -> None:
    """Download the files whose blobs are not here."""
    missing = [file for file in files if not (blobs / file.checksum).is_file()]
    total = _size(files)
    done = total - _size(missing)
    _check_room(blobs, missing)
    for file in missing:
        url = hf_hub_url(repo, file.name, revision=commit, endpoint=constants.ENDPOINT)
        before = done

        def advance(here: int, before: int = before) -> None:
            _check_stop(repo, stop)
            if progress is not None:
                progress(before + here, max(total, before + here))

        advance(0)
        fetch(url, file, blobs, advance, stop)
        done += file.size or 0


@contextmanager
def _locked(file: Path, repo: str, stop: Event) -> Generator[None]:
    """Hold the lock that lets one process at a time download a repository. Raises `Stopped`."""
    with ExitStack() as held:
        while True:
            with suppress(Timeout):
                held.enter_context(WeakFileLock(file, timeout=LOCK_SECONDS))
                break
            _check_stop(repo, stop)
        yield


def _check_stop(repo: str, stop: Event) -> None:
    if stop.is_set():
        raise Stopped(f"the download of {repo} was stopped")


def _check_room(folder: Path, missing: Sequence[File]) -> None:
    """Raise `HubError` unless the disk has room for what is to come."""
    here = sum(part.stat().st_size for file in missing if (part := part_of(folder, file)).exists())
    needed, free = _size(missing) - here, shutil.disk_usage(folder).free
    if needed > free:
        raise HubError(
            f"does not fit on the disk: {needed / 1e6:,.1f} MB are to come, and {folder} has "
            f"{free / 1e6:,.1f} MB left"
        )


def _size(files: Sequence[File]) -> int:
    return sum(file.size or 0 for file in files)


def _in_words(error: Exception, repo: str, revision: str | None) -> str:
    """Why a download failed; the sentence goes on from the repository's name."""
    hub = constants.ENDPOINT
    if isinstance(error, BrokenAnswer):
        return str(error)
    if isinstance(error, OfflineModeIsEnabled):
        return "is not on this disk, and HF_HUB_OFFLINE keeps it from being downloaded"
    if isinstance(error, Refused):
        if error.code == "GatedRepo":
            return (
                f"is gated: accept its terms at {hub}/{repo}, and set HF_TOKEN to a token of yours"
            )
        if error.code == "RevisionNotFound":
            return f"has no revision `{revision}`"
        reasons = {
            401: f"is not shown by {hub} to everybody, if it exists: set HF_TOKEN",
            403: f"may not be read with this HF_TOKEN, says {hub}",
            404: f"does not exist at {hub}",
        }
        other = f"could not be downloaded: {hub} answered {error.status}"
        return reasons.get(error.status, other)
    if isinstance(error, httpx2.TransportError):
        return f"could not be downloaded: {hub} cannot be reached ({error})"
    if isinstance(error, OSError) and error.errno == errno.ENOSPC:
        return f"could not be downloaded: the disk with {constants.HF_HUB_CACHE} is full"
    return f"could not be downloaded: {first_line(error)}"
