"""What a run gives back."""

from collections.abc import Callable
from typing import Any

from pydantic import BaseModel, Field, PrivateAttr

from longrecipe_core.artifacts import ArtifactRef
from tasks.run import StageOutcome


class RunSummary(BaseModel):
    """The stages of one run, in order."""

    outcomes: list[StageOutcome] = Field(default_factory=list)
    _on_add: Callable[[], None] | None = PrivateAttr(default=None)

    def add(self, outcome: StageOutcome) -> ArtifactRef:
        """Note a stage's outcome and return what the next stages need of it."""
        self.outcomes.append(outcome)
        if self._on_add:
            self._on_add()
        return outcome.ref

    def on_add(self, call: Callable[[], None] | None) -> None:
        """Call something after each outcome; None ends it."""
        self._on_add = call

    def uri(self, stage: str) -> str:
        """Where a stage's data lie."""
        return next(outcome.ref.uri for outcome in self.outcomes if outcome.stage == stage)

    def to_json(self) -> dict[str, Any]:
        """The last line of `longrecipe run`; `model` and `report` where the flow has made them."""
        stages = [
            {
                "stage": outcome.stage,
                "fingerprint": outcome.ref.fingerprint,
                "uri": outcome.ref.uri,
                "status": outcome.status,
                "seconds": round(outcome.seconds, 3),
            }
            for outcome in self.outcomes
        ]
        made = {outcome.stage: outcome.ref.uri for outcome in self.outcomes}
        results = {"model": made.get("merge"), "report": made.get("report")}
        return {"stages": stages} | {name: uri for name, uri in results.items() if uri}
