"""Which errors another try can cure: of storage, of a server or ranks not reached, of a preempted job."""

import errno

from longrecipe_core.errors import (
    CorpusError,
    JobPreemptedError,
    ModelError,
    PublishError,
    RendezvousError,
    SlotsUnreachableError,
)

RETRY_DELAYS = (10.0, 60.0, 300.0)
"""Seconds before each further try of a stage."""

STORAGE_ERRNOS = frozenset(
    {
        errno.EIO,  # also what s3fs makes of an answer that it does not know
        errno.EBUSY,  # what s3fs makes of SlowDown and ServiceUnavailable
        errno.EREMOTEIO,
        errno.ESTALE,  # NFS: the server has restarted
        errno.ETIMEDOUT,
        errno.ECONNREFUSED,
        errno.ECONNRESET,
        errno.ECONNABORTED,
        errno.EPIPE,
        errno.EHOSTDOWN,
        errno.EHOSTUNREACH,
        errno.ENETDOWN,
        errno.ENETUNREACH,
        errno.ENETRESET,
        errno.ENOTCONN,
        errno.ESHUTDOWN,
    }
)
STORAGE_ERRORS = frozenset(
    {
        "botocore.exceptions.ConnectionError",
        "botocore.exceptions.HTTPClientError",
        "botocore.exceptions.IncompleteReadError",
        "botocore.exceptions.ResponseStreamingError",
        "aiohttp.client_exceptions.ClientConnectionError",
        "aiohttp.client_exceptions.ClientPayloadError",
    }
)
"""Classes of clients that may not be installed; a subclass counts too. The model hub's client tries again by itself."""


def is_curable(error: BaseException) -> bool:
    """Whether the same work, done again later, may succeed.

    Memory that does not suffice, a wrong recipe, a job's own error and a full disk are not: they would come again.
    """
    if isinstance(error, CorpusError | ModelError | PublishError) and error.__cause__ is not None:
        return is_storage_error(error.__cause__)  # sources and models lie in object stores, too
    return isinstance(error, JobPreemptedError | RendezvousError | SlotsUnreachableError) or is_storage_error(error)


def is_storage_error(error: BaseException) -> bool:
    """Whether an object store or a network file system could not be reached, or failed for the moment."""
    if isinstance(error, TimeoutError) or (isinstance(error, OSError) and error.errno in STORAGE_ERRNOS):
        return True
    return any(f"{kind.__module__}.{kind.__qualname__}" in STORAGE_ERRORS for kind in type(error).__mro__)
