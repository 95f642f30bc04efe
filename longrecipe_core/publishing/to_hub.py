"""A model's files to a repository of the Hugging Face hub, as one commit."""

import hashlib
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from longrecipe_core.corpus.files import one_line
from longrecipe_core.corpus.hub import HUB_ERRORS, hub_token
from longrecipe_core.errors import PublishError
from longrecipe_core.publishing.files import PublishedFile

if TYPE_CHECKING:
    from huggingface_hub import HfApi


def send(files: Sequence[PublishedFile], name: str, *, private: bool, replace: bool, log: Callable[[str], None]) -> int:
    """Commit the files to the main branch of `name`, which is made where it is missing; returns how many were sent.

    One commit is there as a whole or not at all. The token is that of the environment (`HF_TOKEN`).

    Raises:
        PublishError: No token, the repository holds something else or is public though `private` is asked for, the hub
            refuses, or other bytes arrived.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.utils.tqdm import disable_progress_bars

    token = hub_token()
    if token is None:
        raise PublishError(f"hf://{name}: HF_TOKEN is not set; put a token that may write there into the environment")
    disable_progress_bars()
    try:
        return _send(HfApi(token=token), files, name, private, replace, log)
    except (*HUB_ERRORS, ValueError) as error:
        if isinstance(error, PublishError):
            raise
        raise PublishError(f"hf://{name}: {one_line(error)}") from error


def _send(
    api: "HfApi",
    files: Sequence[PublishedFile],
    name: str,
    private: bool,
    replace: bool,
    log: Callable[[str], None],
) -> int:
    from huggingface_hub import CommitOperationAdd, CommitOperationDelete

    api.create_repo(name, private=private or None, exist_ok=True)
    info = api.model_info(name, files_metadata=True)
    if private and not info.private:
        raise PublishError(f"hf://{name}: is there, and public; make it private on the hub, or take another name")
    found = _visible(info)
    wanted = {file.name: file for file in files}
    changed = [file for file in files if file.name not in found or not _same(found[file.name], file)]
    stale = sorted(found.keys() - wanted.keys())
    if not changed and not stale:
        log(f"hf://{name}: holds this model already")
        return 0
    if found and not replace:
        some = ", ".join(sorted(found)[:3])
        raise PublishError(f"hf://{name}: holds something else ({some}, …); --replace puts this model in its place")
    log(f"hf://{name}: sends {len(changed)} files, {sum(file.size for file in changed):,} bytes")
    commit = api.create_commit(
        name,
        [
            *(CommitOperationAdd(path_in_repo=file.name, path_or_fileobj=file.path) for file in changed),
            *(CommitOperationDelete(path_in_repo=one) for one in stale),
        ],
        commit_message="Publish with LongRecipe",
        parent_commit=info.sha,  # whoever commits meanwhile is not overwritten
    )
    after = _visible(api.model_info(name, revision=commit.oid, files_metadata=True))
    wrong = [file.name for file in files if file.name not in after or not _same(after[file.name], file)]
    if wrong:
        raise PublishError(f"hf://{name}: other bytes arrived than were sent, of {', '.join(wrong)}; publish again")
    return len(changed)


def _visible(info: Any) -> dict[str, Any]:
    """Files of a repository by name; hidden ones, such as `.gitattributes`, are the hub's own."""
    return {one.rfilename: one for one in info.siblings or () if not one.rfilename.startswith(".")}


def _same(sibling: Any, file: PublishedFile) -> bool:
    """Whether the hub has a file's bytes: large ones it knows by sha256, small ones as git does."""
    if sibling.lfs is not None:
        return bool(sibling.lfs.sha256 == file.sha256)
    return bool(sibling.size == file.size and sibling.blob_id == _git_digest(file))


def _git_digest(file: PublishedFile) -> str:
    digest = hashlib.sha1(f"blob {file.size}\0".encode(), usedforsecurity=False)
    with open(file.path, "rb") as source:
        while block := source.read(1 << 22):
            digest.update(block)
    return digest.hexdigest()
