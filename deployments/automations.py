"""What Prefect's server does by itself: mark runs as crashed whose process is gone, and tell people.

`python -m deployments.set_up` puts these on a server.
"""

from collections.abc import Sequence
from datetime import timedelta
from uuid import UUID

from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.objects import StateType
from prefect.events.actions import ChangeFlowRunState, SendNotification
from prefect.events.schemas.automations import AutomationCore, EventTrigger, Posture
from prefect.events.schemas.events import ResourceSpecification

GONE_AFTER = timedelta(minutes=5)
"""Longer than a server takes to restart, also on a busy machine: while it is away, no run can give a sign of life."""

FLOW_RUNS = ResourceSpecification({"prefect.resource.id": "prefect.flow-run.*"})
OURS = ResourceSpecification({"prefect.resource.role": "tag", "prefect.resource.id": "prefect.tag.longrecipe"})
"""Runs of our deployments, all of which have this tag: other people's are let alone."""


def crash_detection() -> AutomationCore:
    """A run that gave signs of life, and then none, nor an end: its worker or machine is gone."""
    heartbeat = "prefect.flow-run.heartbeat"
    ends = ("Completed", "Failed", "Cancelled", "Crashed", "Paused", "Suspended")
    return AutomationCore(
        name="longrecipe: crashed",
        description=f"Marks a run as crashed that has given no sign of life for {GONE_AFTER.seconds} s",
        trigger=EventTrigger(
            after={heartbeat},
            expect={heartbeat, *(f"prefect.flow-run.{state}" for state in ends)},
            match=FLOW_RUNS,
            match_related=OURS,
            for_each={"prefect.resource.id"},
            posture=Posture.Proactive,
            threshold=1,
            within=GONE_AFTER,
        ),
        actions=[
            ChangeFlowRunState(
                state=StateType.CRASHED,
                message=f"No sign of life for {GONE_AFTER.seconds} s: its process, worker or machine is gone. Retry "
                "goes on after the last checkpoint.",
            )
        ],
    )


def notifications(block: UUID) -> list[AutomationCore]:
    """Messages through a notification block: for runs that failed or crashed, and for promoted models."""
    run = "{{ flow_run.name }} of {{ flow.name }}: {{ flow_run.state.message }}\n{{ flow_run|ui_url }}"
    return [
        _notification(f"{state.lower()} runs", f"prefect.flow-run.{state}", FLOW_RUNS, OURS, block, f"{state}", run)
        for state in ("Failed", "Crashed")
    ] + [
        _notification(
            "promoted models",
            "longrecipe.model.promoted",
            ResourceSpecification({"prefect.resource.id": "longrecipe.model.*"}),
            ResourceSpecification({}),
            block,
            "Promoted",
            "{{ event.resource.id }}: {{ event.payload.model }} is the latest model now",
        )
    ]


def _notification(
    what: str,
    event: str,
    match: ResourceSpecification,
    related: ResourceSpecification,
    block: UUID,
    subject: str,
    body: str,
) -> AutomationCore:
    return AutomationCore(
        name=f"longrecipe: tell of {what}",
        description=f"Sends a message for each event {event}",
        trigger=EventTrigger(
            expect={event},
            match=match,
            match_related=related,
            for_each={"prefect.resource.id"},
            posture=Posture.Reactive,
            threshold=1,
        ),
        actions=[SendNotification(block_document_id=block, subject=f"longrecipe: {subject}", body=body)],
    )


def put(client: SyncPrefectClient, wanted: Sequence[AutomationCore]) -> list[str]:
    """Make automations, or bring those of the same name up to date; returns a line for each.

    One that somebody has switched off stays so.
    """
    lines = []
    for automation in wanted:
        found = client.read_automations_by_name(automation.name)
        if not found:
            client.create_automation(automation)
            lines.append(f"automation {automation.name!r}: created")
        elif _content(found[0]) == _content(automation):
            lines.append(f"automation {automation.name!r}: there already")
        else:
            client.update_automation(found[0].id, automation.model_copy(update={"enabled": found[0].enabled}))
            lines.append(f"automation {automation.name!r}: changed")
    return lines


def _content(automation: AutomationCore) -> object:
    trigger, actions = automation.trigger.model_dump(mode="json", exclude={"id"}), automation.actions
    for name in ("after", "expect", "for_each"):
        trigger[name] = sorted(trigger[name])
    return trigger, [action.model_dump(mode="json") for action in actions], automation.description
