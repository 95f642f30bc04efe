"""What we ask the Hugging Face hub: a token from the environment in, commits out."""

import os

from huggingface_hub import HfApi
from huggingface_hub.errors import HfHubHTTPError, HFValidationError

from longrecipe_core.corpus.files import one_line
from longrecipe_core.errors import CorpusError

# A refused connection is an error of the hub's HTTP client and no OSError. Which client that is differs
# between releases of the hub's library, whose own HTTP error always derives from it.
_CLIENT_ERROR: type[Exception] = next(
    base for base in HfHubHTTPError.__mro__ if base.__name__ == "HTTPError" and issubclass(base, Exception)
)
HUB_ERRORS = (OSError, _CLIENT_ERROR, HFValidationError)


def hub_token() -> str | None:
    """The hub token from the environment (`HF_TOKEN`); a login stored on the machine is not used."""
    return os.environ.get("HF_TOKEN") or None


def dataset_commit(name: str, revision: str | None) -> str:
    """The commit that a dataset's branch or tag (default: its main branch) stands for now.

    Raises:
        CorpusError: the hub can't be reached, or has no such dataset or revision.
    """
    try:
        commit = HfApi(token=hub_token() or False).dataset_info(name, revision=revision).sha
    except HUB_ERRORS as error:
        raise CorpusError(f"hub dataset {name}: no commit to be had: {one_line(error)}") from error
    return _known(commit, f"hub dataset {name}")


def model_commit(name: str) -> str:
    """The commit of a model repository's main branch; raises CorpusError as `dataset_commit`."""
    try:
        commit = HfApi(token=hub_token() or False).model_info(name).sha
    except HUB_ERRORS as error:
        raise CorpusError(f"tokenizer {name}: neither a directory nor on the hub: {one_line(error)}") from error
    return _known(commit, f"tokenizer {name}")


def _known(commit: str | None, name: str) -> str:
    if not commit:
        raise CorpusError(f"{name}: the hub names no commit")
    return commit
