"""A stage as a Prefect task: its run's name, and when it is tried again."""

from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

from prefect import Task, task
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State, TaskRun

from tasks.names import stage_run_name
from tasks.retries import RETRY_DELAYS, is_curable

P = ParamSpec("P")
R = TypeVar("R")


def stage_task(name: str) -> Callable[[Callable[P, R]], Task[P, R]]:
    """Make a function whose first parameter is `run: Run` the task of stage `name`.

    Prefect's cache is off: the store is the only one. Tried again after `RETRY_DELAYS` where that can help; jobs that
    were killed or preempted have been started again inside the stage before (`launch.restarts`).
    """

    def run_name(parameters: dict[str, Any]) -> str:
        return stage_run_name(name, parameters["run"].recipe)

    def decorate(function: Callable[P, R]) -> Task[P, R]:
        return task(
            name=name,
            task_run_name=run_name,  # type: ignore[arg-type]  # Prefect's protocol has a class method, too
            cache_policy=NO_CACHE,
            retries=len(RETRY_DELAYS),
            retry_delay_seconds=list(RETRY_DELAYS),
            retry_condition_fn=may_succeed,
        )(function)

    return decorate


def may_succeed(task: "Task[..., Any]", task_run: TaskRun, state: "State[Any]") -> bool:
    """Whether another try can help, for a task's `retry_condition_fn`."""
    error = state.result(raise_on_failure=False)
    return isinstance(error, BaseException) and is_curable(error)
