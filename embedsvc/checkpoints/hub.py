"""Repositories of a hub on this disk: Hugging Face's, or the one that HF_ENDPOINT names.

They lie where and as huggingface_hub keeps them, so programs share them. A file gets its name
once all of it has come and has the hub's checksum; until then it lies beside, to go on from. What
is complete is used as it is, without asking the hub: a model changes only when somebody pulls it.
"""

import errno
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from threading import Event

import httpx2
from huggingface_hub import (
    HfApi,
    constants,
    hf_hub_url,
    snapshot_download,  # pyright: ignore[reportUnknownVariableType] - of unused parameters
)
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RevisionNotFoundError,
)
from huggingface_hub.utils import WeakFileLock

from embedsvc.checkpoints.download import BrokenFile, File, fetch, part_of
from embedsvc.errors import Stopped

Told = Callable[[int, int], None]
"""Told the bytes that are here, and those there are to be."""
NEEDED = re.compile(r"([^/]+\.(json|txt|model)|(model|weights)[^/]*\.safetensors)")
NOT_NEEDED = frozenset({"onnx", "openvino", "coreml", "gguf", "original"})
"""Folders with the model for others."""
PATTERNS = ["*.json", "*.txt", "*.model", "model*.safetensors", "*/model*.safetensors"]
"""The same for huggingface_hub."""
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
        names = _list_of(root, commit).read_text(encoding="utf-8").splitlines()
    except OSError:
        return None
    folder = root / "snapshots" / commit
    return folder if all((folder / name).is_file() for name in names) else None


def pull(
    repo: str, revision: str | None, told: Told | None = None, stop: Event | None = None
) -> Path:
    """The folder of a repository, as the hub has it now; what is not here is downloaded.

    Raises `HubError`, `Stopped` once `stop` is set.
    """
    try:
        return _download(repo, revision or constants.DEFAULT_REVISION, told, stop or Event())
    except BrokenFile as error:
        raise HubError(str(error)) from None
    except (httpx2.HTTPError, HFValidationError, OSError) as error:
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
    api = HfApi(endpoint=constants.ENDPOINT)
    info = api.model_info(repo, revision=revision, files_metadata=True, timeout=10)
    commit = info.sha or ""
    files = [
        File(each.rfilename, each.size or 0, each.lfs.sha256 if each.lfs else each.blob_id or "")
        for each in info.siblings or ()
        if _needed(each.rfilename)
    ]
    odd = [file.name for file in files if not CHECKSUM.fullmatch(file.checksum)]
    if odd or not COMMIT.fullmatch(commit):
        raise HubError(f"is told of by {constants.ENDPOINT} without checksums")
    root = repo_folder(repo)
    blobs = root / "blobs"
    blobs.mkdir(parents=True, exist_ok=True)
    with WeakFileLock(root / "embedsvc.lock"):  # one process at a time
        missing = [file for file in files if not (blobs / file.checksum).is_file()]
        total = sum(file.size for file in files)
        done = total - sum(file.size for file in missing)
        _check_room(blobs, missing)
        for file in missing:
            url = hf_hub_url(repo, file.name, revision=commit, endpoint=constants.ENDPOINT)
            before = done

            def advance(here: int, before: int = before) -> None:
                if stop.is_set():
                    raise Stopped(f"the download of {repo} was stopped")
                if told is not None:
                    told(before + here, total)

            advance(0)
            fetch(url, file, blobs, advance, stop)
            done += file.size
        return _link(root, revision, commit, files)


def _needed(name: str) -> bool:
    *folders, last = name.split("/")
    if any(part.startswith(".") for part in (*folders, last)) or not NOT_NEEDED.isdisjoint(folders):
        return False
    return NEEDED.fullmatch(last) is not None


def _check_room(folder: Path, missing: list[File]) -> None:
    here = sum(part.stat().st_size for file in missing if (part := part_of(folder, file)).exists())
    needed, free = sum(file.size for file in missing) - here, shutil.disk_usage(folder).free
    if needed > free:
        raise HubError(
            f"does not fit on the disk: {needed / 1e6:,.1f} MB are to come, and {folder} has "
            f"{free / 1e6:,.1f} MB left"
        )


def _link(root: Path, revision: str, commit: str, files: list[File]) -> Path:
    """The folder with the files under their names; it counts as complete from the end on."""
    folder = root / "snapshots" / commit
    folder.mkdir(parents=True, exist_ok=True)
    for file in files:
        link = folder / file.name
        link.parent.mkdir(parents=True, exist_ok=True)
        link.unlink(missing_ok=True)
        blob = root / "blobs" / file.checksum
        link.symlink_to(os.path.relpath(blob, link.parent))
    if revision != commit:
        _write(root / "refs" / revision, commit)
    _write(_list_of(root, commit), "\n".join(file.name for file in files))
    return folder


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
    if isinstance(error, GatedRepoError):
        return f"is gated: accept its terms at {hub}/{repo}, and set HF_TOKEN to a token of yours"
    if isinstance(error, RevisionNotFoundError):
        return f"has no revision `{revision}`"
    if isinstance(error, HfHubHTTPError):
        status = error.response.status_code
        told = {
            401: f"is not shown by {hub} to everybody, if it exists: set HF_TOKEN",
            403: f"may not be read with this HF_TOKEN, says {hub}",
            404: f"does not exist at {hub}",
        }
        return told.get(status, f"could not be downloaded: {hub} answered {status}")
    if isinstance(error, httpx2.TransportError):
        return f"could not be downloaded: {hub} cannot be reached ({error})"
    if isinstance(error, OSError) and error.errno == errno.ENOSPC:
        return f"could not be downloaded: the disk with {constants.HF_HUB_CACHE} is full"
    return f"could not be downloaded: {str(error).strip().splitlines()[0]}"
