"""Questions about one of many documents, from a file of SQuAD 2.0 or HotpotQA.

Template and choice of documents are those of RULER (Hsieh et al. 2024, arXiv 2404.06654, section 3.4 and appendix B;
NVIDIA/RULER, Apache-2.0: scripts/data/synthetic/qa.py, constants.py).
"""

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from longrecipe_core.errors import EvaluationError
from longrecipe_core.evaluation.ruler.prompts import Draft
from longrecipe_core.recipe import QuestionsSection

TEXT = (
    "Answer the question based on the given documents. Only give me the answer and do not output any other words.\n\n"
    "The following are given documents.\n\n{context}\n\nAnswer the question based on the given documents. Only give "
    "me the answer and do not output any other words.\n\nQuestion: {question} Answer:"
)


@dataclass(frozen=True)
class Question:
    """`own` are the documents that come with it, `near` those that are taken before any other."""

    text: str
    answers: tuple[str, ...]
    own: tuple[int, ...]
    near: tuple[int, ...] = ()


@dataclass(frozen=True)
class Questions:
    """The questions in the order of the file, one per sample; from the first again where there are no more."""

    name: str
    documents: tuple[str, ...] = field(repr=False)
    questions: tuple[Question, ...] = field(repr=False)
    least: int = 1
    new_tokens: int = 32

    def draft(self, size: int, length: int, sample: int, rng: np.random.Generator) -> Draft:
        """See `prompts.Task`; `size` counts documents: a question's own are there in any case."""
        question = self.questions[sample % len(self.questions)]
        chosen = self._choose(question, max(size, len(question.own)), rng)
        context = "\n\n".join(
            f"Document {number}:\n{self.documents[chosen[at]]}"
            for number, at in enumerate(rng.permutation(len(chosen)), start=1)
        )
        return Draft(TEXT.format(context=context, question=question.text), question.answers)

    def _choose(self, question: Question, size: int, rng: np.random.Generator) -> Sequence[int]:
        if size >= len(self.documents):
            return [at % len(self.documents) for at in range(size)]
        chosen = [*question.own, *rng.permutation(question.near)[: size - len(question.own)].tolist()]
        others = np.setdiff1d(np.arange(len(self.documents)), chosen)
        return [*chosen, *rng.choice(others, size - len(chosen), replace=False).tolist()]


def read_questions(task: str, section: QuestionsSection) -> Questions:
    """The task `qa_1` (SQuAD) or `qa_2` (HotpotQA) with the file of its section.

    Raises:
        EvaluationError: The file can't be read, is another than the recipe says, or has another form.
    """
    try:
        data = Path(section.path).expanduser().read_bytes()
    except OSError as error:
        raise EvaluationError(f"{task}: {section.path} can't be read: {error.strerror}") from error
    digest = hashlib.sha256(data).hexdigest()
    if digest != section.sha256:
        raise EvaluationError(f"{task}: {section.path} has sha256 {digest}, the recipe says {section.sha256}")
    read: Callable[[Any], tuple[list[str], list[Question]]] = {"qa_1": _squad, "qa_2": _hotpotqa}[task]
    try:
        documents, questions = read(json.loads(data))
    except (ValueError, KeyError, TypeError) as error:
        raise EvaluationError(
            f"{task}: {section.path} is not as {read.__name__.strip('_')} files are: {type(error).__name__}: {error}"
        ) from error
    if not questions:
        raise EvaluationError(f"{task}: {section.path} has no question that can be answered")
    return Questions(task, tuple(documents), tuple(questions))


def _squad(tree: Any) -> tuple[list[str], list[Question]]:
    """A paragraph is a document; near are those of the same article. Questions without an answer are left out."""
    documents = sorted({paragraph["context"] for article in tree["data"] for paragraph in article["paragraphs"]})
    place = {text: at for at, text in enumerate(documents)}
    questions = []
    for article in tree["data"]:
        paragraphs = [place[paragraph["context"]] for paragraph in article["paragraphs"]]
        for own, paragraph in zip(paragraphs, article["paragraphs"], strict=True):
            near = tuple(at for at in paragraphs if at != own)
            questions += [
                Question(entry["question"], tuple(answer["text"] for answer in entry["answers"]), (own,), near)
                for entry in paragraph["qas"]
                if not entry["is_impossible"]
            ]
    return documents, questions


def _hotpotqa(tree: Any) -> tuple[list[str], list[Question]]:
    """A paragraph under its title is a document; a question has ten of its own, of which two hold the answer."""
    contexts = [[f"{title}\n{''.join(sentences)}" for title, sentences in entry["context"]] for entry in tree]
    documents = sorted({text for context in contexts for text in context})
    place = {text: at for at, text in enumerate(documents)}
    return documents, [
        Question(entry["question"], (entry["answer"],), tuple(place[text] for text in context))
        for entry, context in zip(tree, contexts, strict=True)
    ]
