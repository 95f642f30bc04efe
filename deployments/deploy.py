"""`python -m deployments.deploy`: `prefect deploy --all`, and schedules that somebody has switched on stay on.

By itself Prefect sets each schedule back to what prefect.yaml says, where `retrain`'s sleeps.
"""

import subprocess
import sys
from pathlib import Path
from uuid import UUID

from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.filters import DeploymentFilter, DeploymentFilterTags
from prefect.client.schemas.responses import DeploymentResponse
from prefect.client.schemas.sorting import DeploymentSort

ROOT = Path(__file__).resolve().parents[1]


def main() -> int:
    """Deploy; the exit code is Prefect's, whose output is shown only when it fails."""
    with get_client(sync_client=True) as client:
        before = _schedules(client)
        command = [sys.executable, "-m", "prefect", "--no-prompt", "deploy", "--all"]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
        if done.returncode:
            print(done.stdout, done.stderr, sep="", file=sys.stderr)
            return done.returncode
        for key, active in _schedules(client).items():
            if before.get(key, active) != active:
                client.update_deployment_schedule(*key, active=before[key])
        for deployment in _deployments(client):
            print(f"deployment {deployment.name}: deployed", flush=True)
    return 0


def _schedules(client: SyncPrefectClient) -> dict[tuple[UUID, UUID], bool]:
    """Ids of each deployment and its schedules, and which are on."""
    return {
        (deployment.id, schedule.id): schedule.active
        for deployment in _deployments(client)
        for schedule in deployment.schedules
        if schedule.id is not None
    }


def _deployments(client: SyncPrefectClient) -> list[DeploymentResponse]:
    ours = DeploymentFilter(tags=DeploymentFilterTags(all_=["longrecipe"]))
    return client.read_deployments(deployment_filter=ours, sort=DeploymentSort.NAME_ASC, limit=200)


if __name__ == "__main__":
    sys.exit(main())
