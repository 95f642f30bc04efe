"""Our prompts and scores against the benchmark's own code, as lm-eval carries it (Apache-2.0, NVIDIA/RULER).

The published generators are run with the draws that our prompt shows: what they then write must be our prompt, letter
by letter. What they would download they are given here.
"""

import hashlib
import importlib
import json
import random
import re
import sys
from importlib.util import find_spec
from types import ModuleType, SimpleNamespace

import nltk
import numpy as np
import pytest
import wonderwords

from longrecipe_core.corpus.randomness import generator
from longrecipe_core.evaluation.ruler import Haystack, ruler_task, score
from longrecipe_core.evaluation.ruler.haystack import SENTENCE_END
from longrecipe_core.evaluation.ruler.questions import read_questions
from longrecipe_core.evaluation.ruler.vocabulary import adjectives, nouns, words
from longrecipe_core.recipe import RulerSection
from longrecipe_core.recipe.evaluation import SYNTHETIC

HAYSTACK = Haystack(tuple(f"Word{number}{'.' if number % 7 == 6 else ''}" for number in range(900)))
SECTION = RulerSection(lengths=(4096,))
NEEDLE = re.compile(r"One of the special magic (numbers|uuids) for (\S+) is: (\S+)\.")
NEEDLES = [name for name in SYNTHETIC if name.startswith("niah")]
SAMPLES = 3
ADJECTIVES, NOUNS = set(adjectives()), set(nouns())


LISTS = {"nouns": ["fox", "owl"], "adjectives": ["quick", "odd"], "verbs": ["run"]}


@pytest.fixture(scope="module")
def published():
    """lm-eval's modules of RULER's tasks, without the rest of it, and without what they would download with.

    One of them pairs six million words, here four.
    """
    names = ("common_utils", "vt_utils", "cwe_utils", "fwe_utils", "qa_utils", "prepare_niah", "niah_utils")
    known = {name for name in sys.modules if name.startswith("lm_eval")}
    kept = {name: sys.modules.pop(name) for name in known}
    try:
        with pytest.MonkeyPatch.context() as patch:
            root = find_spec("lm_eval").submodule_search_locations[0]
            for package, path in (("lm_eval", root), ("lm_eval.tasks", f"{root}/tasks")):
                module = ModuleType(package)
                module.__path__ = [path]
                sys.modules[package] = module
            patch.setitem(sys.modules, "datasets", SimpleNamespace(Dataset=None, Split=None))
            patch.setitem(sys.modules, "transformers", SimpleNamespace(AutoTokenizer=None))
            patch.setattr(nltk.data, "find", lambda name: name)
            modules = {name: importlib.import_module(f"lm_eval.tasks.ruler.{name}") for name in names[:-2]}
            patch.setattr(wonderwords, "RandomWord", lambda: SimpleNamespace(_categories=LISTS))
            modules |= {name: importlib.import_module(f"lm_eval.tasks.ruler.{name}") for name in names[-2:]}
        return SimpleNamespace(**modules)
    finally:
        for name in [name for name in sys.modules if name.startswith("lm_eval")]:
            del sys.modules[name]  # other tests shall have it whole
        sys.modules.update(kept)


def ours(name, size, length=4096):
    """Drafts of our own task."""
    task = ruler_task(name, SECTION, HAYSTACK)
    return [task.draft(size, length, sample, generator(7, name, sample)) for sample in range(SAMPLES)]


class Draws:
    """In place of the module `random`: its functions give what they are told, in order."""

    def __init__(self, samples=(), orders=(), choices=()):
        self._samples, self._orders, self._choices = iter(samples), iter(orders), iter(choices)

    def choices(self, population, k):
        return next(self._choices)

    def sample(self, population, count):
        drawn = list(next(self._samples))
        assert len(drawn) == count
        return drawn

    def shuffle(self, entries):
        order = list(next(self._orders))
        assert sorted(order) == sorted(entries)
        entries[:] = order

    def Random(self, seed):
        return self


def one_by_one(values):
    """A function that returns them, whatever it is asked."""
    left = iter(values)
    return lambda *_, **__: next(left)


def always(value):
    """A function that returns it, whatever it is asked."""
    return lambda *_, **__: value


def settings(published, name, monkeypatch):
    """What the published task of that name asks its generator for."""
    asked = {}

    def noted(haystack, **arguments):
        asked.update(arguments, haystack=haystack)
        return []

    monkeypatch.setattr(published.niah_utils, "get_tokenizer", lambda *_: None)
    monkeypatch.setattr(published.niah_utils, "generate_samples", noted)
    monkeypatch.setattr(
        published.niah_utils,
        "get_haystack",
        lambda type_haystack: (
            list(HAYSTACK.words) if type_haystack == "essay" else published.prepare_niah.get_haystack(type_haystack)
        ),
    )
    monkeypatch.setattr(published.niah_utils, "download_dataset", list)
    getattr(published.niah_utils, name)()
    for key in ("num_needle_k", "num_needle_v", "num_needle_q"):
        asked.setdefault(key, 1)
    asked["num_needle_k"] = max(asked["num_needle_k"], asked["num_needle_q"])  # as generate_samples has it
    return asked


def sentences_in(text):
    """How many sentences a part of the haystack has; the last need not be whole."""
    plain = " ".join(text.split())
    return len(SENTENCE_END.split(plain)) if plain else 0


def without_blanks_at_edges(text):
    """The published code puts an empty text before a needle that begins, and after one that ends the haystack."""
    return re.sub(r"(?<=\n) | (?=\n)|(?<= ) ", "", text)


@pytest.mark.parametrize("name", NEEDLES)
def test_needles(published, monkeypatch, name):
    asked = settings(published, name, monkeypatch)
    assert asked.pop("num_samples") == 500
    size = 300 if asked["type_haystack"] == "essay" else 30
    module = published.prepare_niah
    for draft in ours(name, size):
        text = draft.text
        context = text[text.index("\n") + 1 : text.rindex("\n")]
        query = re.search(r"What (?:is|are all) the special magic \w+ for (.*?) mentioned", text)[1]
        queries = query.replace(", and ", ", ").split(", ")
        found = [(match[2], match[3], match[0]) for match in NEEDLE.finditer(context)]
        lines = context.split("\n")
        count = asked["num_needle_k"] * asked["num_needle_v"]
        if asked["type_haystack"] == "needle":
            # Which of these lines is the needle that counts, only the question tells.
            (place,) = (at for at, (key, _, _) in enumerate(found) if key in queries)
            places, noise, found = [place], found[:place] + found[place + 1 :], [found[place]]
        elif asked["type_haystack"] == "repeat":
            places, noise = [at for at, line in enumerate(lines) if NEEDLE.fullmatch(line)], []
        else:
            before = [sentences_in(NEEDLE.sub("", context[: match.start()])) for match in NEEDLE.finditer(context)]
            sentences = sentences_in(" ".join(HAYSTACK.words[:size]))
            places, noise = [100 * (at + (at < sentences) / 2) / sentences for at in before], []
        assert len(found) == count
        keys = list(dict.fromkeys(key for key, _, _ in found))
        values = {key: [value for own, value, _ in found if own == key] for key in keys}
        # Answers stand in the order of the questions.
        assert sorted(draft.answers) == sorted(value for key in queries for value in values[key])
        drawn = [part for key in keys for part in (key, *values[key])] + [
            p for key, value, _ in noise for p in (key, value)
        ]
        monkeypatch.setattr(module, "generate_random", one_by_one(drawn))
        monkeypatch.setattr(module, "cached_sent_tokenize", SENTENCE_END.split)
        order = [sentence for _, _, sentence in found]
        if asked["type_haystack"] != "essay":
            order.reverse()  # inserted from the end on
        # Places in the text without needles: each needle before it has moved it by one.
        shifted = [place - at if asked["type_haystack"] != "essay" else place for at, place in enumerate(places)]
        monkeypatch.setattr(module, "random", Draws([shifted, [keys.index(key) for key in queries]], [order]))
        made, answers, _ = module.generate_input_output(
            size, **{key: value for key, value in asked.items() if key not in ("max_seq_length", "TOKENIZER")}
        )
        kind = asked["type_needle_v"]
        prefix = (
            f" The special magic {kind[:-1]} for {query} mentioned in the provided text is"
            if asked["num_needle_q"] * asked["num_needle_v"] == 1
            else f" The special magic {kind} for {query} mentioned in the provided text are"
        )
        assert without_blanks_at_edges(made + prefix) == without_blanks_at_edges(text)
        assert sorted(answers) == sorted(draft.answers)


def test_needles_are_drawn_from_what_is_published(published):
    module = published.prepare_niah
    assert set(module.WORDS) == {"quick-fox", "quick-owl", "odd-fox", "odd-owl"}
    categories = wonderwords.RandomWord()._categories
    assert set(nouns()) == set(categories["nouns"])
    assert set(adjectives()) == set(categories["adjectives"])
    assert set(published.cwe_utils.WORDS) == set(words())
    every = {f"{adjective}-{noun}" for draft in ours("niah_multiquery", 60) for adjective, noun in pairs(draft.text)}
    assert len(every) == 4 * SAMPLES
    for kind, name in (("numbers", "niah_single_1"), ("uuids", "niah_single_3")):
        form = r"[1-9]\d{6}" if kind == "numbers" else r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}"
        assert re.fullmatch(form, module.generate_random(kind))
        assert all(re.fullmatch(form, value) for draft in ours(name, 60) for value in draft.answers)


def pairs(text):
    """Adjective and noun of each key; both may have hyphens of their own."""
    for _, key, _ in NEEDLE.findall(text):
        at = next(
            m.start() for m in re.finditer("-", key) if key[: m.start()] in ADJECTIVES and key[m.end() :] in NOUNS
        )
        yield key[:at], key[at + 1 :]


def chain(text):
    """Names, value and places of the assignments among the lines of noise."""
    context = text[text.index("\n\n") + 2 : text.index("\nQuestion")]
    lines = re.findall(r"VAR (\w+) = (?:VAR )?(\w+)|There and back again\.", context)
    names = [name for name, _ in lines if name]
    places = [at - sum(bool(name) for name, _ in lines[:at]) for at, (name, _) in enumerate(lines) if name]
    return names, lines[[bool(name) for name, _ in lines].index(True)][1], places


def test_variable_tracking(published, monkeypatch):
    module = published.vt_utils
    for draft in ours("vt", 40):
        start = draft.text.index("Memorize", 10)
        made = []
        for text, lines in ((draft.text[:start], 12), (draft.text[start:], 40)):
            names, value, places = chain(text)
            monkeypatch.setattr(module, "random", Draws([places], choices=names))
            monkeypatch.setattr(module, "np", SimpleNamespace(random=SimpleNamespace(randint=one_by_one([value]))))
            made.append(module.generate_input_output(lines, 1, 4))
        (example, solution), (text, names) = made
        assert list(draft.answers) == names
        monkeypatch.setattr(module, "generate_input_output", always(made[1]))
        monkeypatch.setattr(module, "randomize_icl", lambda example: example)
        (row,) = module.sys_vartrack_w_noise_random(
            lambda text: SimpleNamespace(input_ids=[0] * 50),
            1,
            # Text, example and answer exactly: else it would look for another size, for ever.
            50 + 50 + 30,
            icl_example={"input": example, "outputs": solution},
        )
        monkeypatch.undo()
        # lm-eval strips the blank that the published prompt ends with.
        assert f"{row['input']} {row['gen_prefix']} " == draft.text


@pytest.mark.parametrize("length", [2048, 4096])
def test_common_words(published, monkeypatch, length):
    module = published.cwe_utils
    for draft in ours("cwe", 60, length):
        solution = re.search(r"list are:(1\. .*)\n", draft.text)[1]
        common = [re.findall(r"\d+\. (.*?)(?= \d+\. |$)", solution), list(draft.answers)]
        example = re.findall(r"\d+\. (.*?)(?= \d+\. |$)", draft.text.split("\n")[1])
        listed = re.findall(r"\d+\. (.*?)(?= \d+\. |$)", draft.text.split("\n")[4])
        samples = [
            [*often, *dict.fromkeys(word for word in entries if word not in often)]
            for often, entries in zip(common, (example, listed), strict=True)
        ]
        monkeypatch.setattr(module, "random", Draws(samples))
        monkeypatch.setattr(module, "RNG", Draws(orders=[example, listed]))
        shown, text, answers = module.generate_input_output(60, length)
        assert f"{shown}\n{text}" == draft.text
        assert answers == list(draft.answers)


def test_frequent_words(published, monkeypatch):
    module = published.fwe_utils
    for draft in ours("fwe", 1500):
        coded = draft.text[draft.text.index("coded words. ") + 13 : draft.text.index("\nQuestion")].split()
        # By their counts; equal counts in any order.
        known = sorted(dict.fromkeys(coded), key=lambda word: (word != "...", -coded.count(word)))
        known[1:4] = draft.answers
        vocabulary = known + [f"never{number}" for number in range(4096 // 50 - len(known))]
        draws = Draws(orders=[vocabulary, coded, coded], choices=vocabulary)
        monkeypatch.setattr(module, "random", draws)
        text, answers, _ = module.generate_input_output(
            4096, lambda text: SimpleNamespace(input_ids=[]), num_words=1500, vocab_size=4096 // 50
        )
        assert text == draft.text
        assert answers == list(draft.answers)


def questions(kind):
    """A file in the form of SQuAD 2.0 or HotpotQA."""
    if kind == "hotpotqa":
        return [
            {
                "question": f"Where is {number}?",
                "answer": f"Town {number}",
                "context": [[f"Title {number}.{at}", ["One. ", f"{number} is in Town {number}."]] for at in range(10)],
            }
            for number in range(9)
        ]
    paragraphs = [
        {
            "context": f"Paragraph {number} says {number}77.",
            "qas": [
                {"question": f"What says {number}?", "is_impossible": False, "answers": [{"text": f"{number}77"}] * 2},
                {"question": "Unknown?", "is_impossible": True, "answers": []},
            ],
        }
        for number in range(60)
    ]
    return {"data": [{"paragraphs": paragraphs[at : at + 4]} for at in range(0, 60, 4)]}


@pytest.mark.parametrize(("name", "kind"), [("qa_1", "squad"), ("qa_2", "hotpotqa")])
@pytest.mark.parametrize("size", [3, 30])
def test_questions(published, monkeypatch, tmp_path, name, kind, size):
    module = published.qa_utils
    path = tmp_path / "file.json"
    path.write_text(json.dumps(questions(kind)))
    monkeypatch.setattr(module, "download_json", lambda url: questions(kind))
    asked, documents = (module.read_squad if kind == "squad" else module.read_hotpotqa).__wrapped__()
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    task = read_questions(name, SimpleNamespace(path=str(path), sha256=digest))
    assert list(task.documents) == documents
    size = max(size, len(asked[0]["context"]))
    for sample in range(SAMPLES):
        draft = task.draft(size, 4096, sample, generator(7, name, sample))
        shown = re.findall(r"Document \d+:\n(.*?)(?=\n\nDocument \d+:|\n\nAnswer the)", draft.text, re.DOTALL)
        own = asked[sample]["context"]
        near = asked[sample].get("more_context", [])
        others = [documents.index(text) for text in shown if documents.index(text) not in own]
        if size > len(own) + len(near):
            assert set(near) <= set(others)  # those of the same article come first
            others = [at for at in others if at not in near]
        monkeypatch.setattr(module, "random", Draws([others], [shown]))
        text, answers = module.generate_input_output(sample, size, asked, documents)
        assert f"{text} {module.CONFIG['answer_prefix']}" == draft.text
        assert answers == list(draft.answers)


def test_an_answer_has_as_many_tokens(published):
    for name, module in (("vt", published.vt_utils.CONFIG["variable_tracking"]), ("cwe", published.cwe_utils.CONFIG),
                         ("fwe", published.fwe_utils.CONFIG)):  # fmt: skip
        assert ruler_task(name, SECTION, HAYSTACK).new_tokens == module["tokens_to_generate"]
    assert published.qa_utils.CONFIG["tokens_to_generate"] == 32
    defaults = published.prepare_niah.generate_samples.__kwdefaults__
    assert {ruler_task(name, SECTION, HAYSTACK).new_tokens for name in NEEDLES} == {defaults["tokens_to_generate"]}


def test_scores_of_the_same_predictions(published):
    """One difference: of several references of a question, lm-eval counts the share that is found; RULER wants one."""
    rng = random.Random(3)
    pieces = ["Paris", "paris ", "12", "123", "\x07", "\n", " London", "", "Ünö"]
    common = published.common_utils
    scored = []
    for _ in range(200):
        answer = "".join(rng.choices(pieces, k=rng.randrange(6)))
        wanted = rng.sample(["Paris", "london", "12", "ünö", "york"], rng.randrange(1, 5))
        doc = {"max_length": 4096, "outputs": wanted}
        scored.append(100 * common.process_results(doc, [answer])["4096"])
        assert score("vt", answer, wanted) == pytest.approx(scored[-1])
        share = 100 * common.process_results_part(doc, [answer])["4096"]
        assert score("qa_1", answer, wanted) == pytest.approx(share if len(wanted) == 1 else 100 * (share > 0))
    assert len(np.unique(scored)) > 4
