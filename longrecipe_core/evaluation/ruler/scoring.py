"""Scores of answers by string match, as RULER has them (NVIDIA/RULER: scripts/eval), and the effective length."""

import re
from collections.abc import Mapping, Sequence

CONTROL = re.compile(r"[\x00-\x1f]")


def string_match_all(answer: str, wanted: Sequence[str]) -> float:
    """Percentage of the wanted strings that stand somewhere in the answer, in whatever case."""
    found = _plain(answer)
    return 100 * sum(text.lower() in found for text in wanted) / len(wanted)


def string_match_part(answer: str, wanted: Sequence[str]) -> float:
    """100 where one of the wanted strings stands somewhere in the answer, in whatever case, else 0."""
    found = _plain(answer)
    return 100.0 * any(text.lower() in found for text in wanted)


def score(task: str, answer: str, wanted: Sequence[str]) -> float:
    """0 to 100: for questions one of the wanted strings will do, elsewhere all of them count."""
    return (string_match_part if task.startswith("qa_") else string_match_all)(answer, wanted)


def effective_length(means: Mapping[int, float], threshold: float) -> int:
    """The largest length whose mean score is above the threshold; 0 where none is."""
    return max((length for length, mean in means.items() if mean > threshold), default=0)


def _plain(answer: str) -> str:
    return CONTROL.sub("\n", answer.strip()).strip().lower()
