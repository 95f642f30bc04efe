"""Which errors are worth another try: a table of what the layers below really raise."""

import errno

import aiohttp
import botocore.exceptions
import fsspec.exceptions
import pytest
from s3fs.errors import translate_boto_error

from longrecipe_core import errors
from tasks.retries import is_curable


def of_s3(code, status=500):
    """What s3fs makes of an answer of the server."""
    answer = {"Error": {"Code": code, "Message": "told"}, "ResponseMetadata": {"HTTPStatusCode": status}}
    return translate_boto_error(botocore.exceptions.ClientError(answer, "PutObject"))


def raised_from(error, cause):
    error.__cause__ = cause
    return error


CURABLE = {
    "preempted once more": errors.JobPreemptedError("saved"),
    "rendezvous": errors.RendezvousError("apart"),
    "no answer about slots": errors.SlotsUnreachableError("can't be reached"),
    "NFS server restarted": OSError(errno.ESTALE, "stale"),
    "disk or mount": OSError(errno.EIO, "I/O"),
    "refused": ConnectionRefusedError(errno.ECONNREFUSED, "refused"),
    "timeout of a socket": TimeoutError("timed out"),
    "timeout of fsspec": fsspec.exceptions.FSTimeoutError(),
    "S3 slows down": of_s3("SlowDown", 503),
    "S3 is unavailable": of_s3("ServiceUnavailable", 503),
    "S3 fails": of_s3("InternalError"),
    "S3 not reached": botocore.exceptions.EndpointConnectionError(endpoint_url="http://there"),
    "S3 broke off": botocore.exceptions.ReadTimeoutError(endpoint_url="http://there"),
    "S3 sent half": botocore.exceptions.IncompleteReadError(actual_bytes=1, expected_bytes=2),
    "payload": aiohttp.ClientPayloadError("half"),
    "disconnected": aiohttp.ServerDisconnectedError(),
    "a source on S3": raised_from(errors.CorpusError("can't be read"), of_s3("SlowDown", 503)),
    "a model on S3": raised_from(errors.ModelError("can't be downloaded"), OSError(errno.EIO, "I/O")),
}
FINAL = {
    "CUDA memory": errors.LaunchError("rank 0: torch.OutOfMemoryError: CUDA out of memory"),
    "killed for memory": errors.JobOutOfMemoryError("rank 0 was killed by SIGKILL"),
    "memory here": MemoryError(),
    "memory of a system call": OSError(errno.ENOMEM, "no memory"),
    "killed, started again already": errors.JobKilledError("rank 0 was killed by SIGKILL"),
    "job's own error": errors.LaunchError("rank 0: TrainingError: step 4: the loss is nan"),
    "recipe": errors.RecipeError("extend.steps: must be positive"),
    "training": errors.TrainingError("the loss is nan"),
    "damaged": errors.ArtifactDamagedError("bad file"),
    "lease": errors.LeaseLostError("taken over"),
    "no limit": errors.SlotsError("there is no such limit"),
    "disk full": OSError(errno.ENOSPC, "no space"),
    "not allowed": PermissionError(errno.EACCES, "denied"),
    "no file": FileNotFoundError(errno.ENOENT, "no such file"),
    "no input": errors.InputMissingError("holds nothing"),
    "S3 denies": of_s3("AccessDenied", 403),
    "S3 has no bucket": of_s3("NoSuchBucket", 404),
    "no credentials": botocore.exceptions.NoCredentialsError(),
    "a bad row": raised_from(errors.CorpusError("can't be read"), ValueError("no UTF-8")),
    "the hub is switched off": raised_from(errors.ModelError("not to be had"), ConnectionError("offline mode")),
    "no Ray there": raised_from(errors.FanOutError("no Ray cluster"), ConnectionRefusedError(errno.ECONNREFUSED, "no")),
    "anything else": RuntimeError("?"),
}


@pytest.mark.parametrize("name", CURABLE)
def test_tried_again(name):
    assert is_curable(CURABLE[name])


@pytest.mark.parametrize("name", FINAL)
def test_not_tried_again(name):
    assert not is_curable(FINAL[name])


def test_every_error_of_the_project_is_final_but_those_named():
    named = {errors.JobPreemptedError, errors.RendezvousError, errors.SlotsUnreachableError}
    of_the_project = {kind for kind in vars(errors).values() if isinstance(kind, type)}
    assert {kind for kind in of_the_project if issubclass(kind, Exception) and is_curable(kind("x"))} == named
