"""Prompts of RULER's tasks, made offline, and their scores."""

from longrecipe_core.evaluation.ruler.haystack import Haystack
from longrecipe_core.evaluation.ruler.needles import Needles
from longrecipe_core.evaluation.ruler.prompts import Draft, Prompt, Task, prompts
from longrecipe_core.evaluation.ruler.scoring import effective_length, score, string_match_all, string_match_part
from longrecipe_core.evaluation.ruler.tasks import ruler_task

__all__ = [
    "Draft",
    "Haystack",
    "Needles",
    "Prompt",
    "Task",
    "effective_length",
    "prompts",
    "ruler_task",
    "score",
    "string_match_all",
    "string_match_part",
]
