"""lm-eval's tasks: which there are, and what they are loaded from.

lm-eval is an extra and slow to import, so nothing here imports it before a recipe asks for benchmarks.
"""

import contextlib
import difflib
import hashlib
import importlib.util
import json
import os
import random
import re
from collections.abc import Iterable, Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from longrecipe_core.errors import EvaluationError
from longrecipe_core.recipe import BenchmarksSection

KEY = "evaluation.benchmarks"
_COMPILED = "__pycache__"
_NAME = re.compile(r"""^["']?(?:task|group)["']?:[ \t]*["']?([^\s"'#\[{]+)""", re.MULTILINE)
"""In the text of a task's YAML."""


def tasks_digest(directory: str | Path) -> str:
    """What a directory of tasks holds, 64 hexadecimal digits: names and bytes of its files, wherever it lies.

    Raises:
        EvaluationError: There is no file.
    """
    root = Path(directory).expanduser()
    files = sorted(path for path in root.rglob("*") if path.is_file() and _COMPILED not in path.parts)
    if not files:
        raise EvaluationError(f"{KEY}.include_path: {directory}: no file there; a local directory with task YAMLs")
    rows = [(str(path.relative_to(root)), hashlib.sha256(path.read_bytes()).hexdigest()) for path in files]
    return hashlib.sha256(json.dumps(rows).encode("ascii")).hexdigest()


def check_tasks(section: BenchmarksSection) -> None:
    """Look whether the tasks can be there, without loading any: told before days of training.

    Raises:
        EvaluationError: lm-eval is not installed, has no task of that name, or the task runs code that a model writes
            and the recipe does not confirm it.
    """
    if importlib.util.find_spec("lm_eval") is None:
        raise EvaluationError(f"{KEY} needs lm-eval, which is not installed: pip install 'longrecipe[eval]'")
    from lm_eval.tasks._yaml_loader import load_yaml

    own = _own_index(section)
    missing = {name for name in section.tasks if name not in own}
    if not missing:
        return
    # lm-eval's own index of its 14,000 YAML files takes up to a minute; their text is read in seconds.
    known: set[str] = set(own)
    mentioned: set[str] = set()
    word = re.compile(r"(?<![\w-])(?:" + "|".join(map(re.escape, sorted(missing))) + r")(?![\w-])")
    for path in _lm_eval_tasks().rglob("*.yaml"):
        text = path.read_text(encoding="utf-8", errors="replace")
        names = set(_NAME.findall(text))
        known |= names
        mentioned |= set(word.findall(text))
        for name in names & missing:
            if load_yaml(path, resolve_func=False).get("unsafe_code"):
                _refuse_unsafe(section, name)
    for name in sorted(missing - mentioned):
        raise EvaluationError(_unknown(name, known))


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """lm-eval draws progress bars and warns of what is meant so; in a log these would be most of the lines."""
    with open(os.devnull, "w", encoding="utf-8") as nowhere, contextlib.redirect_stderr(nowhere):
        yield


class BenchmarkTasks:
    """The tasks of a recipe, each loaded once, so that every model is asked the same.

    `tokenizer` is a directory with the tokenizer by which lm-eval's RULER measures its prompts.
    """

    def __init__(self, section: BenchmarksSection, tokenizer: Path, seed: int) -> None:
        self.section, self.seed = section, seed
        self._metadata: dict[str, Any] = {"tokenizer": str(tokenizer)}
        if section.lengths is not None:
            self._metadata["max_seq_lengths"] = list(section.lengths)
        self._loaded: dict[str, dict[str, Any]] = {}

    @cached_property
    def manager(self) -> Any:
        """lm-eval's `TaskManager`: over the recipe's own tasks where all are there, else over all."""
        from lm_eval.tasks import TaskManager

        own = self.section.include_path
        if own is not None:
            manager = TaskManager(include_path=own, include_defaults=False, metadata=self._metadata)
            if all(_whole(manager.task_index, name) for name in self.section.tasks):
                return manager
        print("reads lm-eval's index of tasks", flush=True)
        return TaskManager(include_path=own, metadata=self._metadata)

    def load(self, name: str) -> dict[str, Any]:
        """What lm-eval's `TaskManager.load` makes of a name: its `tasks` and `groups`, by name, with their data.

        Raises:
            EvaluationError: No such task, its data can't be had, or it is not confirmed that it runs a model's code.
        """
        if name in self._loaded:
            return self._loaded[name]
        index = self.manager.task_index
        if name not in index:
            raise EvaluationError(_unknown(name, index))
        if any((entry.cfg or {}).get("unsafe_code") for entry in _leaves(index, name)):
            _refuse_unsafe(self.section, name)
            os.environ["HF_ALLOW_CODE_EVAL"] = "1"  # in this process, which the recipe allows it
        # Some tasks draw their questions when they are loaded.
        random.seed(self.seed)
        np.random.seed(self.seed % 2**32)
        try:
            with quiet():
                loaded: dict[str, Any] = self.manager.load([name])
        except Exception as error:  # of the hub's client, of a data set's reader, of a task's own code
            reason = next(iter(str(error).strip().splitlines()), "")
            raise EvaluationError(
                f"{KEY}.tasks: {name} can't be loaded: {type(error).__name__}: {reason}; lm-eval downloads its tasks' "
                f"data: run once where the Hugging Face hub can be reached, or with its cache (HF_HOME), or name tasks "
                f"of your own in {KEY}.include_path"
            ) from error
        self._loaded[name] = loaded
        return loaded


def _own_index(section: BenchmarksSection) -> Mapping[str, Any]:
    """Of the recipe's own tasks, by name."""
    if section.include_path is None:
        return {}
    from lm_eval.tasks import TaskManager

    tasks_digest(section.include_path)
    index: Mapping[str, Any] = TaskManager(include_path=section.include_path, include_defaults=False).task_index
    for name in section.tasks:
        if any((entry.cfg or {}).get("unsafe_code") for entry in _leaves(index, name)):
            _refuse_unsafe(section, name)
    return index


def _lm_eval_tasks() -> Path:
    import lm_eval.tasks

    return Path(lm_eval.tasks.__file__).parent


def _children(entry: Any) -> Iterator[str | None]:
    """Names of what a group has; None for one that is defined in the group itself."""
    from lm_eval.tasks._index import Kind

    if entry.kind is Kind.TAG:
        yield from sorted(entry.tags)
    elif entry.kind is Kind.GROUP:
        for child in entry.cfg.get("task") or ():
            yield child if isinstance(child, str) else child.get("task") or child.get("group")


def _leaves(index: Mapping[str, Any], name: str | None) -> Iterator[Any]:
    """The index' entries of a task, or of all in a group, as far as they are in the index."""
    entry = index.get(name) if isinstance(name, str) else None
    if entry is None:
        return
    children = list(_children(entry))
    if not children:
        yield entry
    for child in children:
        yield from _leaves(index, child)


def _whole(index: Mapping[str, Any], name: Any) -> bool:
    """Whether the index has the task, and all of the group."""
    entry = index.get(name) if isinstance(name, str) else None
    return entry is not None and all(_whole(index, child) for child in _children(entry))


def _refuse_unsafe(section: BenchmarksSection, name: str) -> None:
    if not section.confirm_unsafe:
        raise EvaluationError(
            f"{KEY}.tasks: {name} runs code that the model writes, on the machine that evaluates; "
            f"{KEY}.confirm_unsafe: true allows it"
        )


def _unknown(name: str, known: Iterable[str]) -> str:
    close = difflib.get_close_matches(name, list(known), n=3)
    return (
        f"{KEY}.tasks: lm-eval has no task {name!r}"
        + (f"; close are {', '.join(close)}" if close else "")
        + f"; lm-eval ls tasks lists all, {KEY}.include_path adds your own"
    )
