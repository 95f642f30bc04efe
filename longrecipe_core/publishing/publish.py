"""Where to: the hub, or a directory on any filesystem."""

import re
from collections.abc import Callable, Sequence

from pydantic import BaseModel, ConfigDict

from longrecipe_core.artifacts.location import open_location, redact
from longrecipe_core.errors import PublishError
from longrecipe_core.publishing.files import PublishedFile

HUB = "hf://"
Log = Callable[[str], None]


class Published(BaseModel):
    """Where a model now lies, how many files and bytes it has, and how many files had to be sent."""

    model_config = ConfigDict(frozen=True)

    target: str
    files: int
    bytes: int
    sent: int


def check_target(target: str, private: bool) -> str | None:
    """The hub id of a target, None of any other URL.

    Raises:
        PublishError: Not a hub id after `hf://`, or `private` for a place that is not the hub.
        StoreError: A URL that carries credentials, or that no filesystem knows.
    """
    if not target.startswith(HUB):
        if private:
            raise PublishError(f"{redact(target)}: private is for the hub only; who may read elsewhere is told there")
        open_location(target)
        return None
    name = target.removeprefix(HUB)
    if not re.fullmatch(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*", name):
        raise PublishError(f"{redact(target)}: a target on the hub reads hf://ORGANIZATION/NAME")
    return name


def publish_files(
    files: Sequence[PublishedFile], target: str, *, private: bool = False, replace: bool = False, log: Log = print
) -> Published:
    """Copy a model's files to `hf://ORGANIZATION/NAME` or any fsspec URL, and compare what arrived with their digests.

    A target that holds something else is left as it is unless `replace`. See `to_hub.send` and `to_url.send`.

    Raises:
        PublishError: The target holds something else, can't be reached, or other bytes arrived.
        StoreError: See `check_target`.
    """
    name = check_target(target, private)
    if name is not None:
        from longrecipe_core.publishing import to_hub

        sent = to_hub.send(files, name, private=private, replace=replace, log=log)
    else:
        from longrecipe_core.publishing import to_url

        sent = to_url.send(files, open_location(target), replace=replace, log=log)
    place = target if name is not None else open_location(target).uri
    return Published(target=place, files=len(files), bytes=sum(file.size for file in files), sent=sent)
