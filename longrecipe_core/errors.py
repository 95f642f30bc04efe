"""One class per cause. A message names the value, where it came from and what would do."""

import sys
from collections.abc import Callable


class LongRecipeError(Exception):
    """The root of every error that this project raises on purpose."""


class RecipeError(LongRecipeError):
    """A recipe can't be read or asks for something impossible."""


class FingerprintError(LongRecipeError, TypeError):
    """A value has no certain serialization, so it can't decide an artifact's identity."""


class StoreError(LongRecipeError, ValueError):
    """A store can't do what it was asked: a bad root, kind, fingerprint or directory."""


class ManifestError(LongRecipeError):
    """A manifest was written by a release whose form this one doesn't know."""


class InputMissingError(LongRecipeError, FileNotFoundError):
    """A file, directory or glob that a recipe names holds nothing."""


class ArtifactMissingError(LongRecipeError):
    """An artifact that was referred to is not in the store."""


class ArtifactDamagedError(LongRecipeError):
    """An artifact's bytes are not the ones that its manifest lists."""


class StartFromError(LongRecipeError):
    """A stage before the one to start from is not in the store and would have to be computed."""


class AdoptionError(LongRecipeError):
    """A checkpoint can't be taken as a stage's result."""


class LeaseLostError(LongRecipeError):
    """Another process took over the stage that this one was working on."""


class CorpusError(LongRecipeError):
    """A source of documents can't be read."""


class PositionError(LongRecipeError, ValueError):
    """Positions were asked for that can't exist."""


class IndexingError(LongRecipeError, ValueError):
    """No training samples can be made from these tokens."""


class FanOutError(LongRecipeError):
    """A shard could not be computed on any worker."""


class AttentionError(LongRecipeError, ValueError):
    """Attention is not what training on skipped positions needs."""


class ModelError(LongRecipeError):
    """A model directory is incomplete or not of a kind that we can extend."""


class BaseModelError(ModelError):
    """The base model that a recipe trains is not as good as the recipe asks."""


class MergeError(LongRecipeError, ValueError):
    """Checkpoints can't be averaged."""


class TrainingError(LongRecipeError):
    """A training run can't go on."""


class PreemptedError(LongRecipeError):
    """A training job was told to end, and has saved its state: started again, it goes on from there."""


class LaunchError(LongRecipeError):
    """A launched job ended badly; this class itself: by an error of its own, which a restart would meet again."""


class JobPreemptedError(LaunchError):
    """A launched job was told to end by SIGTERM from outside: started again, it goes on from its newest checkpoint."""


class JobKilledError(LaunchError):
    """A launched job, its launcher or one of its ranks was killed by a signal: a restart may well succeed."""


class JobOutOfMemoryError(LaunchError):
    """A launched job was killed by the kernel for memory: started again, it would need as much."""


class RendezvousError(LaunchError):
    """The ranks of a launched job did not find each other at its start: started again later, they may."""


class SlotsError(LongRecipeError):
    """Slots of a concurrency limit can't be had: it is missing, or too small."""


class SlotsUnreachableError(SlotsError):
    """The server that gives the slots can't be reached for now."""


class EvaluationError(LongRecipeError):
    """A measurement can't be taken."""


class PublishError(LongRecipeError):
    """A model can't be published: it is not there, its place holds something else, or other bytes arrived."""


# EX_TEMPFAIL of sysexits.h: the same command, given again, goes on.
PREEMPTED_EXIT_CODE = 75


def run_job(work: Callable[[], None]) -> int:
    """The exit code of a job's process: a known error is one line on stderr and 1, the rest keep their traceback.

    A preempted job's is `PREEMPTED_EXIT_CODE`.
    """
    try:
        work()
    except PreemptedError as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr, flush=True)
        return PREEMPTED_EXIT_CODE
    except LongRecipeError as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr, flush=True)
        return 1
    return 0
