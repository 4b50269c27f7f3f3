"""Repositories of a hub on this disk: Hugging Face's, or the one that HF_ENDPOINT names.

They lie where and as huggingface_hub keeps them, so programs share them. A file gets its name
once all of it has come and has the hub's checksum; until then it lies beside, to go on from. What
is complete is used as it is, without asking the hub: a model changes only when somebody pulls it.
"""

import errno
import os
import re
import shutil
from collections.abc import Callable, Generator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from threading import Event

import httpx2
from filelock import Timeout
from huggingface_hub import (
    constants,
    hf_hub_url,
    snapshot_download,  # pyright: ignore[reportUnknownVariableType] - of unused parameters
)
from huggingface_hub.errors import (
    HFValidationError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
)
from huggingface_hub.utils import WeakFileLock, validate_repo_id

from embedsvc.bounds import HUB_BYTES, HUB_FILES
from embedsvc.checkpoints.download import File, fetch, part_of
from embedsvc.checkpoints.hub_client import BrokenAnswer, Info, Refused, ask
from embedsvc.errors import Stopped

Told = Callable[[int, int], None]
"""Told the bytes that are here, and those there are to be."""
NEEDED = re.compile(r"([^/]+\.(json|txt|model)|(model|weights)[^/]*\.safetensors)")
NOT_NEEDED = frozenset({"onnx", "openvino", "coreml", "gguf", "original"})
"""Folders with the model for others."""
PATTERNS = ["*.json", "*.txt", "*.model", "model*.safetensors", "*/model*.safetensors"]
"""The same for huggingface_hub."""
PLAIN = re.compile(r"[A-Za-z0-9_][\w.+=@ -]{0,99}", re.ASCII)
"""A part of a file's name that is the same on every disk, and leads nowhere."""
DEEPEST = 8
"""Folders in each other."""
LOCK_SECONDS = 1.0
"""How often somebody who waits for another process looks whether to stop."""
CHECKSUM = re.compile("[0-9a-f]{64}|[0-9a-f]{40}")
COMMIT = re.compile("[0-9a-f]{40}")


class HubError(Exception):
    """Why a repository is not here; the sentence goes on from its name."""


def find(
    repo: str,
    revision: str | None,
    *,
    download: bool = True,
    told: Told | None = None,
    stop: Event | None = None,
) -> Path:
    """The folder of a repository, as it is here; if it is not, downloaded, where that is allowed.

    Raises `HubError`, `Stopped` once `stop` is set.
    """
    folder = kept(repo, revision)
    if folder is None and not download:
        folder = _from_others(repo, revision)
        if folder is None:
            raise HubError("is not on this disk")
    return folder or pull(repo, revision, told, stop)


def kept(repo: str, revision: str | None) -> Path | None:
    """The folder of a repository that was downloaded as a whole."""
    root = repo_folder(repo)
    revision = revision or constants.DEFAULT_REVISION
    try:
        commit = revision
        if not COMMIT.fullmatch(revision):
            commit = (root / "refs" / revision).read_text(encoding="ascii")
    except (OSError, ValueError):
        return None
    return _complete(root, commit) if COMMIT.fullmatch(commit) else None


def pull(
    repo: str, revision: str | None, told: Told | None = None, stop: Event | None = None
) -> Path:
    """The folder of a repository, as the hub has it now; what is not here is downloaded.

    Raises `HubError`, `Stopped` once `stop` is set.
    """
    try:
        return _download(repo, revision or constants.DEFAULT_REVISION, told, stop or Event())
    except BrokenAnswer as error:
        raise HubError(str(error)) from None
    except (Refused, httpx2.HTTPError, HFValidationError, OSError) as error:
        unreachable = isinstance(error, httpx2.TransportError | OfflineModeIsEnabled)
        if unreachable and (folder := _from_others(repo, revision)):
            return folder
        raise HubError(_in_words(error, repo, revision)) from None


def repo_folder(repo: str) -> Path:
    """Where a repository is kept, if it is."""
    return Path(constants.HF_HUB_CACHE, "--".join(("models", *repo.split("/"))))


def is_here(repo: str) -> bool:
    """Whether anything of a repository is here."""
    return "/" in repo and (repo_folder(repo) / "blobs").is_dir()


def size_of_parts(repo: str) -> int:
    """Bytes of the files that have not come as a whole."""
    return sum(part.stat().st_size for part in (repo_folder(repo) / "blobs").glob("*.part"))


def delete(repo: str) -> int:
    """Delete all of a repository that is here; the bytes there were."""
    root = repo_folder(repo)
    size = sum(blob.stat().st_size for blob in (root / "blobs").iterdir())
    shutil.rmtree(root)
    return size


def _download(repo: str, revision: str, told: Told | None, stop: Event) -> Path:
    if stop.is_set():
        raise Stopped(f"the download of {repo} was stopped")
    validate_repo_id(repo)
    info = ask(repo, revision, stop)
    commit = info.sha
    files = _files(info)
    if not COMMIT.fullmatch(commit):
        raise HubError(f"is told of by {constants.ENDPOINT} without checksums")
    root = repo_folder(repo)
    blobs = root / "blobs"
    blobs.mkdir(parents=True, exist_ok=True)
    with _locked(root / "embedsvc.lock", repo, stop):  # one process at a time
        folder = _complete(root, commit)
        if folder is None or not all((folder / file.name).is_file() for file in files):
            _fetch_all(repo, commit, files, blobs, told, stop)
            folder = _link(root, commit, files)
        if revision != commit:
            _write(root / "refs" / revision, commit)
        return folder


def _files(info: Info) -> list[File]:
    """The files that are needed. Raises `HubError` where what the hub says of them cannot be."""
    files = [
        File(each.name, each.size, (each.lfs.sha256 if each.lfs else each.blob) or "")
        for each in info.siblings
        if _needed(each.name)
    ]
    if any(not CHECKSUM.fullmatch(file.checksum) for file in files):
        raise HubError(f"is told of by {constants.ENDPOINT} without checksums")
    if len({file.name for file in files}) < len(files):
        raise HubError(f"has a file twice, says {constants.ENDPOINT}")
    if len(files) > HUB_FILES or sum(file.size or 0 for file in files) > HUB_BYTES:
        raise HubError(
            f"is too large: at most {HUB_FILES} files and {HUB_BYTES >> 30} GiB are downloaded"
        )
    return files


def _fetch_all(
    repo: str, commit: str, files: list[File], blobs: Path, told: Told | None, stop: Event
) -> None:
    """Bring what is not here yet."""
    missing = [file for file in files if not (blobs / file.checksum).is_file()]
    total = sum(file.size or 0 for file in files)
    done = total - sum(file.size or 0 for file in missing)
    _check_room(blobs, missing)
    for file in missing:
        url = hf_hub_url(repo, file.name, revision=commit, endpoint=constants.ENDPOINT)
        before = done

        def advance(here: int, before: int = before) -> None:
            if stop.is_set():
                raise Stopped(f"the download of {repo} was stopped")
            if told is not None:
                told(before + here, max(total, before + here))

        advance(0)
        fetch(url, file, blobs, advance, stop)
        done += file.size or 0


@contextmanager
def _locked(file: Path, repo: str, stop: Event) -> Generator[None]:
    """While no other process downloads the repository. Raises `Stopped`."""
    with ExitStack() as held:
        while True:
            with suppress(Timeout):
                held.enter_context(WeakFileLock(file, timeout=LOCK_SECONDS))
                break
            if stop.is_set():
                raise Stopped(f"the download of {repo} was stopped")
        yield


def _needed(name: str) -> bool:
    *folders, last = name.split("/")
    if len(folders) > DEEPEST or not all(PLAIN.fullmatch(part) for part in (*folders, last)):
        return False
    return NOT_NEEDED.isdisjoint(folders) and NEEDED.fullmatch(last) is not None


def _check_room(folder: Path, missing: list[File]) -> None:
    here = sum(part.stat().st_size for file in missing if (part := part_of(folder, file)).exists())
    needed, free = sum(file.size or 0 for file in missing) - here, shutil.disk_usage(folder).free
    if needed > free:
        raise HubError(
            f"does not fit on the disk: {needed / 1e6:,.1f} MB are to come, and {folder} has "
            f"{free / 1e6:,.1f} MB left"
        )


def _link(root: Path, commit: str, files: list[File]) -> Path:
    """The folder with the files under their names; it counts as complete from the end on.

    Who reads there meanwhile finds every file that was there: links that are right stay, and others
    are exchanged in one step.
    """
    folder = root / "snapshots" / commit
    folder.mkdir(parents=True, exist_ok=True)
    new = root / "link.new"
    for file in files:
        link = folder / file.name
        link.parent.mkdir(parents=True, exist_ok=True)
        target = os.path.relpath(root / "blobs" / file.checksum, link.parent)
        if not (link.is_symlink() and os.readlink(link) == target):  # noqa: PTH115 - as it is written
            new.unlink(missing_ok=True)
            new.symlink_to(target)
            new.replace(link)
    _write(_list_of(root, commit), "\n".join(file.name for file in files))
    return folder


def _complete(root: Path, commit: str) -> Path | None:
    """The folder of a commit, if all of its files are here."""
    folder = root / "snapshots" / commit
    try:
        names = _list_of(root, commit).read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError):
        return None
    return folder if all((folder / name).is_file() for name in names) else None


def _list_of(root: Path, commit: str) -> Path:
    """Names the files of a commit, once all are here."""
    return root / "complete" / commit


def _write(file: Path, text: str) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    new = file.with_name(f"{file.name}.new")
    new.write_text(text, encoding="utf-8")
    new.replace(file)


def _from_others(repo: str, revision: str | None) -> Path | None:
    """The folder, if another program downloaded it; huggingface_hub knows of gaps if it did so."""
    try:
        found = snapshot_download(
            repo,
            revision=revision,
            local_files_only=True,
            allow_patterns=PATTERNS,
            ignore_patterns=[f"{name}/*" for name in NOT_NEEDED],
        )
        return Path(found)
    except (LocalEntryNotFoundError, HFValidationError, OSError):
        return None


def _in_words(error: Exception, repo: str, revision: str | None) -> str:
    hub = constants.ENDPOINT
    if isinstance(error, OfflineModeIsEnabled):
        return "is not on this disk, and HF_HUB_OFFLINE keeps it from being downloaded"
    if isinstance(error, Refused):
        if error.code == "GatedRepo":
            return (
                f"is gated: accept its terms at {hub}/{repo}, and set HF_TOKEN to a token of yours"
            )
        if error.code == "RevisionNotFound":
            return f"has no revision `{revision}`"
        told = {
            401: f"is not shown by {hub} to everybody, if it exists: set HF_TOKEN",
            403: f"may not be read with this HF_TOKEN, says {hub}",
            404: f"does not exist at {hub}",
        }
        return told.get(error.status, f"could not be downloaded: {hub} answered {error.status}")
    if isinstance(error, httpx2.TransportError):
        return f"could not be downloaded: {hub} cannot be reached ({error})"
    if isinstance(error, OSError) and error.errno == errno.ENOSPC:
        return f"could not be downloaded: the disk with {constants.HF_HUB_CACHE} is full"
    return f"could not be downloaded: {str(error).strip().splitlines()[0]}"
