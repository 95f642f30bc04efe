"""The thirteen tasks by their published names and settings (NVIDIA/RULER: scripts/synthetic.yaml)."""

from longrecipe_core.evaluation.ruler.haystack import Haystack
from longrecipe_core.evaluation.ruler.needles import Needles
from longrecipe_core.evaluation.ruler.prompts import Task
from longrecipe_core.evaluation.ruler.questions import read_questions
from longrecipe_core.evaluation.ruler.variables import VariableTracking
from longrecipe_core.evaluation.ruler.words import CommonWords, FrequentWords
from longrecipe_core.recipe import RulerSection


def ruler_task(name: str, section: RulerSection, haystack: Haystack) -> Task:
    """The task of that name; `haystack` stands for the essays of the benchmark.

    Raises:
        EvaluationError: The file of its questions can't be read.
    """
    match name:
        case "niah_single_1":
            return Needles(name, "noise")
        case "niah_single_2":
            return Needles(name, haystack)
        case "niah_single_3":
            return Needles(name, haystack, value="uuid")
        case "niah_multikey_1":
            return Needles(name, haystack, keys=4)
        case "niah_multikey_2":
            return Needles(name, "needles")
        case "niah_multikey_3":
            return Needles(name, "needles", key="uuid", value="uuid")
        case "niah_multivalue":
            return Needles(name, haystack, values=4)
        case "niah_multiquery":
            return Needles(name, haystack, keys=4, queries=4)
        case "vt":
            return VariableTracking()
        case "cwe":
            return CommonWords()
        case "fwe":
            return FrequentWords()
    questions = section.squad if name == "qa_1" else section.hotpotqa
    assert questions is not None  # the recipe's schema sees to it
    return read_questions(name, questions)
