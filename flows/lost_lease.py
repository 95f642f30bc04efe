"""A run that has lost its place in its deployment's concurrency limit goes on.

The place is a lease of five minutes that a run renews as long as it lives. A server that keeps leases in memory has
forgotten it after a restart, and it ends while a machine stands still. Prefect cancels a run that can't renew. A
training of days is worth more than one run too many.
"""

import functools
from collections.abc import Callable
from typing import Any

from prefect import flow_engine

RENEWING = ("maintain_concurrency_lease", "amaintain_concurrency_lease")
"""Of Prefect's flow engine, which asks both to raise when they can't renew, and has no setting for it (3.8.8)."""


def outlive_lost_leases() -> None:
    """Have runs of flows in this process go on, with a warning of Prefect's in their logs; idempotent."""
    engine: dict[str, Any] = vars(flow_engine)
    for name in RENEWING:
        if not hasattr(engine[name], "raises"):
            engine[name] = _warning_only(engine[name])


def _warning_only(maintain: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(maintain)
    def maintain_or_warn(lease_id: object, lease_duration: float, **options: object) -> object:
        return maintain(lease_id, lease_duration, **options | {"raise_on_lease_renewal_failure": False})

    vars(maintain_or_warn)["raises"] = maintain
    return maintain_or_warn
