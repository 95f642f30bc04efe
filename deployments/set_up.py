"""`python -m deployments.set_up`: what the deployments need on a Prefect server. Idempotent; says what it did.

The server is that of PREFECT_API_URL or of the active profile. Deployments come after it: `prefect deploy --all`.
"""

import argparse
import copy
import os
import sys
from collections.abc import Iterator
from typing import Any
from uuid import UUID

from prefect.blocks.notifications import CustomWebhookNotificationBlock
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.actions import (
    GlobalConcurrencyLimitCreate,
    GlobalConcurrencyLimitUpdate,
    WorkPoolCreate,
    WorkPoolUpdate,
)
from prefect.client.schemas.objects import BlockDocument
from prefect.exceptions import ObjectNotFound
from prefect.filesystems import LocalFileSystem, RemoteFileSystem
from prefect.settings import PREFECT_API_URL
from prefect.types import SecretDict
from prefect.workers.process import ProcessWorker

from deployments import automations
from deployments.names import NOTIFY_BLOCK, NOTIFY_URL, WORK_POOL
from flows.parameters import default_store
from longrecipe_core.artifacts import ArtifactStore
from longrecipe_core.errors import LongRecipeError

GPU_LIMIT = "gpu"
RESULTS = "longrecipe-results"
RESULTS_KEPT = {
    "PREFECT_RESULTS_PERSIST_BY_DEFAULT": "true",
    "PREFECT_RESULTS_DEFAULT_SERIALIZER": "json",
    # Whether a stage's result still stands, only the store says; a retry would not ask it.
    "PREFECT_TASKS_DEFAULT_PERSIST_RESULT": "false",
}
NOTIFY = "longrecipe-notify"


def main(arguments: list[str] | None = None) -> int:
    """Set up; exit code 1 and one line where that can't be done."""
    parser = argparse.ArgumentParser(prog="python -m deployments.set_up", description=__doc__)
    parser.add_argument(
        "--gpus", type=int, metavar="N", help="slots of the limit `gpu` (default: GPUs of this machine, else 1)"
    )
    parser.add_argument("--store", metavar="URL", default=default_store(), help="of the artifacts; results lie in it")
    options = parser.parse_args(arguments)
    if not PREFECT_API_URL.value():
        print("set_up: no Prefect server: set PREFECT_API_URL, or run `make ui`, which starts one", file=sys.stderr)
        return 1
    try:
        for line in set_up(ArtifactStore(options.store).root, options.gpus):
            print(line, flush=True)
    except LongRecipeError as error:
        print(f"set_up: {error}", file=sys.stderr)
        return 1
    return 0


def set_up(store: str, gpus: int | None = None) -> Iterator[str]:
    """Make what is not there, bring up to date what is; yields a line for each.

    Args:
        store: Root of the artifact store.
        gpus: Slots of the limit `gpu`; when not given, a limit that is there stays as it is.
    """
    with get_client(sync_client=True) as client:
        storage, line = _result_storage(client, store)
        yield line
        yield _work_pool(client, storage)
        yield _gpu_limit(client, gpus)
        yield from automations.put(client, [automations.crash_detection()])
        block = _notification_block(client)
        if block is None:
            yield f"notifications: none; set {NOTIFY_URL}, or {NOTIFY_BLOCK} to TYPE/NAME of a notification block"
        else:
            yield from automations.put(client, automations.notifications(block))


def _work_pool(client: SyncPrefectClient, storage: str) -> str:
    """The pool, whose runs keep flows' results in the block `storage`; a team's own settings of it stay."""
    environment = RESULTS_KEPT | {"PREFECT_RESULTS_DEFAULT_STORAGE_BLOCK": storage}
    try:
        pool = client.read_work_pool(WORK_POOL)
    except ObjectNotFound:
        template = with_environment(ProcessWorker.get_default_base_job_template(), environment)
        client.create_work_pool(WorkPoolCreate(name=WORK_POOL, type="process", base_job_template=template))
        return f"work pool {WORK_POOL}: created, of type process"
    template = with_environment(pool.base_job_template, environment)
    if template == pool.base_job_template:
        return f"work pool {WORK_POOL}: there already, of type {pool.type}"
    client.update_work_pool(WORK_POOL, WorkPoolUpdate(base_job_template=template))
    return f"work pool {WORK_POOL}: changed, its results go to {storage}"


def with_environment(template: dict[str, Any], environment: dict[str, str]) -> dict[str, Any]:
    """A base job template with more variables among the defaults of its jobs' environment."""
    changed = copy.deepcopy(template)
    field = changed["variables"]["properties"]["env"]
    field["default"] = (field.get("default") or {}) | environment
    return changed


def _gpu_limit(client: SyncPrefectClient, gpus: int | None) -> str:
    try:
        limit = client.read_global_concurrency_limit_by_name(GPU_LIMIT).limit
    except ObjectNotFound:
        slots = gpus or _gpus_here() or 1
        client.create_global_concurrency_limit(GlobalConcurrencyLimitCreate(name=GPU_LIMIT, limit=slots, active=True))
        return f"concurrency limit {GPU_LIMIT}: created, {slots} slots"
    if gpus in (None, limit):
        return f"concurrency limit {GPU_LIMIT}: there already, {limit} slots"
    client.update_global_concurrency_limit(GPU_LIMIT, GlobalConcurrencyLimitUpdate(limit=gpus))
    return f"concurrency limit {GPU_LIMIT}: changed from {limit} to {gpus} slots"


def _gpus_here() -> int:
    import torch  # takes seconds, and only the first set-up needs it

    return torch.cuda.device_count()


def _result_storage(client: SyncPrefectClient, store: str) -> tuple[str, str]:
    """Flows' results beside the artifacts; credentials for a remote store come from the worker's environment.

    Returns TYPE/NAME of the block, and what was done.
    """
    place = f"{store}/results"
    block = RemoteFileSystem(basepath=place) if "://" in store else LocalFileSystem(basepath=place)
    slug = f"{block.get_block_type_slug()}/{RESULTS}"
    before = _block(client, slug)
    if before and before.data["basepath"] == place:
        return slug, f"block {slug}: there already, {place}"
    block.save(RESULTS, overwrite=True)
    return slug, f"block {slug}: {'changed' if before else 'created'}, {place}"


def _notification_block(client: SyncPrefectClient) -> UUID | None:
    """The block that messages go through: as the environment says, else one that was made before, else none."""
    own = f"{CustomWebhookNotificationBlock.get_block_type_slug()}/{NOTIFY}"
    slug, url = os.environ.get(NOTIFY_BLOCK), os.environ.get(NOTIFY_URL)
    if url and not slug:
        # As a secret, since such URLs mostly hold a token.
        CustomWebhookNotificationBlock(
            name="longrecipe",
            url="{{url}}",
            json_data={"subject": "{{subject}}", "body": "{{body}}"},
            secrets=SecretDict({"url": url}),
        ).save(NOTIFY, overwrite=True)
    block = _block(client, slug or own)
    if slug and not block:
        raise LongRecipeError(f"{NOTIFY_BLOCK}={slug} in the environment: there is no such block")
    return block.id if block else None


def _block(client: SyncPrefectClient, slug: str) -> BlockDocument | None:
    """A saved block by TYPE/NAME."""
    kind, _, name = slug.partition("/")
    try:
        return client.read_block_document_by_name(name, kind)
    except ObjectNotFound:
        return None


if __name__ == "__main__":
    sys.exit(main())
