"""RULER's prompts, read again from their text alone: by search, by counting, by walking."""

import hashlib
import json
import re
from collections import Counter
from itertools import pairwise

import numpy as np
import pytest
from tokenizers.processors import TemplateProcessing

from longrecipe_core.corpus import load_tokenizer, train_tokenizer
from longrecipe_core.corpus.randomness import generator
from longrecipe_core.corpus.tokenizer import Encoder
from longrecipe_core.errors import EvaluationError
from longrecipe_core.evaluation.ruler import Haystack, Needles, prompts, ruler_task, score
from longrecipe_core.evaluation.ruler.questions import read_questions
from longrecipe_core.evaluation.ruler.vocabulary import words
from longrecipe_core.recipe import QuestionsSection, RulerSection
from longrecipe_core.recipe.evaluation import SYNTHETIC

TEXT = tuple(f"Word{number}{'.' if number % 7 == 6 else ''}" for number in range(3000))
HAYSTACK = Haystack(TEXT)
SECTION = RulerSection(lengths=(2048,))
NEEDLE = re.compile(r"One of the special magic (number|uuid)s for (\S+) is: (\S+)\.")


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    directory = tmp_path_factory.mktemp("tokenizer")
    train_tokenizer([" ".join(words())], 1500, directory, model_max_length=4096)
    return load_tokenizer(directory)


def texts(tokenizer, task, length=2048, samples=4, seed=3):
    made = list(prompts(task, Encoder(tokenizer), length, samples, seed))
    return made, [tokenizer.decode(prompt.input_ids, skip_special_tokens=True) for prompt in made]


def solve(name, text):
    """The answer, as a careful reader gives it."""
    if name.startswith("niah"):
        found = NEEDLE.findall(text)
        query = re.search(r"What (?:is|are all) the special magic \w+ for (.*?) mentioned", text)[1]
        asked = query.replace(", and ", ", ").split(", ")
        return " ".join(value for _, key, value in found if key in asked)
    if name == "vt":
        value = re.findall(r"assigned the value (\d+) in the text", text)[-1]
        task = text[text.rindex("Memorize") :]
        assigned = dict(re.findall(r"VAR (\w+) = (?:VAR )?(\w+)", task))

        def root(name):
            return root(assigned[name]) if name in assigned else name

        return ", ".join(name for name in assigned if root(name) == value)
    if name == "cwe":
        task = text[text.rindex("Below is") : text.rindex("Question:")]
        return " ".join(word for word, _ in Counter(re.findall(r"\d+\. (.*?)(?= \d+\. |\n)", task)).most_common(10))
    coded = re.findall(r"\b[a-z]{6}\b", text[text.index("coded words. ") + 13 : text.index("\nQuestion")])
    return " ".join(word for word, _ in Counter(coded).most_common(3))


@pytest.mark.parametrize("name", SYNTHETIC)
def test_who_reads_the_prompt_alone_has_all_answers(tokenizer, name):
    for length in (2048, 6000):
        made, read = texts(tokenizer, ruler_task(name, SECTION, HAYSTACK), length)
        for prompt, text in zip(made, read, strict=True):
            assert score(name, solve(name, text), prompt.answers) == 100
            assert score(name, "", prompt.answers) == 0
            # What is not asked for is not in the answers: exactly as many as a reader finds.
            assert len(prompt.answers) == len(re.split(r",? (?=\S)", solve(name, text))) or name == "cwe"


@pytest.mark.parametrize("name", SYNTHETIC)
def test_prompts_fill_the_length_and_never_exceed_it(tokenizer, name):
    task = ruler_task(name, SECTION, HAYSTACK)
    made, _ = texts(tokenizer, task, 3000, samples=6)
    total = [len(prompt.input_ids) + prompt.new_tokens for prompt in made]
    assert max(total) <= 3000
    assert max(total) > 2850
    # One more would not have fitted the first.
    read = tokenizer.decode(made[0].input_ids, skip_special_tokens=True)

    def drawn(size):
        return task.draft(size, 3000, 0, generator(3, "prompts", task.name, 3000, 0)).text

    chosen = next(size for size in range(task.least, len(TEXT)) if drawn(size) == read)
    larger = len(tokenizer.encode(drawn(chosen + 1))) + task.new_tokens
    assert larger > 3000 or drawn(chosen + 1) == read  # rounded counts of frequent words may not have changed


def test_the_same_seed_gives_the_same_prompts_and_another_one_others(tokenizer):
    task = ruler_task("niah_multikey_1", SECTION, HAYSTACK)
    first, again, other = (texts(tokenizer, task, seed=seed)[1] for seed in (3, 3, 4))
    assert first == again
    assert not set(first) & set(other)
    assert len(set(first)) == 4


PUBLISHED = {
    # Name: needles in documents or lines, different keys, values asked for, a number or a UUID.
    "niah_single_1": (1, 1, 1, "number"),
    "niah_single_2": (1, 1, 1, "number"),
    "niah_single_3": (1, 1, 1, "uuid"),
    "niah_multikey_1": (4, 4, 1, "number"),
    "niah_multivalue": (4, 1, 4, "number"),
    "niah_multiquery": (4, 4, 4, "number"),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_needles_are_as_many_and_of_the_kind_that_is_published(tokenizer, name):
    needles, keys, asked, kind = PUBLISHED[name]
    for prompt, text in zip(*texts(tokenizer, ruler_task(name, SECTION, HAYSTACK)), strict=True):
        found = NEEDLE.findall(text)
        assert (len(found), len({key for _, key, _ in found}), len(prompt.answers)) == (needles, keys, asked)
        assert {found_kind for found_kind, _, _ in found} == {kind}
        form = r"[1-9]\d{6}" if kind == "number" else r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}"
        assert all(re.fullmatch(form, value) for _, _, value in found)


@pytest.mark.parametrize("name", ["niah_multikey_2", "niah_multikey_3"])
def test_a_haystack_of_needles_is_nothing_else(tokenizer, name):
    _, read = texts(tokenizer, ruler_task(name, SECTION, HAYSTACK))
    for text in read:
        lines = text.splitlines()[1:-1]
        assert len(lines) > 15
        assert all(NEEDLE.fullmatch(line) for line in lines)


def test_the_text_around_needles_is_that_of_the_documents(tokenizer):
    _, read = texts(tokenizer, ruler_task("niah_multikey_1", SECTION, HAYSTACK))
    for text in read:
        context = text.split("\n")[1]
        kept = NEEDLE.sub("", context).split()
        assert kept == list(TEXT[: len(kept)])
        # Needles stand between sentences, at forty depths from 0 to 100 %, each at another one.
        sentences = len(re.findall(r"\.(?: |$)", NEEDLE.sub("", context))) + (not kept[-1].endswith("."))
        before = [
            len(re.findall(r"\. ", NEEDLE.sub("", context[: found.start()]))) for found in NEEDLE.finditer(context)
        ]
        assert set(before) <= {int(sentences * percent / 100) for percent in np.linspace(0, 100, 40).round()}
        assert len(set(before)) == 4


def test_documents_begin_again_when_they_are_too_short():
    assert "".join(Haystack(("a", "b.", "c")).sentences(7)) == "a b.c a b.c a"


@pytest.mark.parametrize("depth", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("text", [HAYSTACK, "noise"], ids=["documents", "noise"])
def test_the_needle_that_is_asked_for_stands_at_its_depth(tokenizer, depth, text):
    task = Needles("needle", text, keys=4, depth=depth)
    for prompt, read in zip(*texts(tokenizer, task, 4000), strict=True):
        context = read[read.index("\n") + 1 : read.rindex("\n")]
        place = context.index(f"is: {prompt.answers[0]}.")
        assert abs(place / len(context) - depth) < 0.06
        others = [match.start() / len(context) for match in NEEDLE.finditer(context) if match[3] != prompt.answers[0]]
        assert len(others) == 3


def test_random_depths_are_spread_over_the_text(tokenizer):
    _, read = texts(tokenizer, ruler_task("niah_single_2", SECTION, HAYSTACK), samples=40)
    depths = [NEEDLE.search(text).start() / len(text) for text in read]
    assert min(depths) < 0.2
    assert max(depths) > 0.7
    assert len(set(np.digitize(depths, [0.25, 0.5, 0.75]))) == 4


def test_variables_make_one_chain_of_four_hops_in_order(tokenizer):
    for prompt, text in zip(*texts(tokenizer, ruler_task("vt", SECTION, HAYSTACK), 6000), strict=True):
        example, task = text.split("\n\n\n\nMemorize")
        lines = re.findall(r"VAR (\w+) = (?:VAR )?(\w+)", task)
        assert [name for name, _ in lines] == list(prompt.answers)
        assert [source for _, source in lines[1:]] == [name for name, _ in lines[:-1]]
        assert [len(name) for name in prompt.answers] == [5] * 5
        solved = re.search(r"they are:  ((?:[A-Z]{3} ?){5})$", example)[1].split()
        assert [name for name, _ in re.findall(r"VAR (\w+) = (?:VAR )?(\w+)", example)] == solved
        assert text.endswith("they are: ")


@pytest.mark.parametrize(("length", "often", "seldom"), [(2048, 6, 1), (8000, 30, 3)])
def test_common_words_stand_as_often_as_published(tokenizer, length, often, seldom):
    (prompt, *_), (text, *_) = texts(tokenizer, ruler_task("cwe", SECTION, HAYSTACK), length)
    entries = re.findall(r"(\d+)\. (.*?)(?= \d+\. |\n)", text[text.rindex("Below is") :])
    assert [int(number) for number, _ in entries] == list(range(1, len(entries) + 1))
    counts = Counter(word for _, word in entries)
    assert {word for word, count in counts.items() if count == often} == set(prompt.answers)
    assert {count for word, count in counts.items() if word not in prompt.answers} == {seldom}
    assert len(prompt.answers) == 10


def test_words_last_for_any_length():
    draft = ruler_task("cwe", SECTION, HAYSTACK).draft(len(words()) + 500, 10**6, 0, generator(1))
    listed = draft.text[draft.text.rindex("Below is") :]
    assert len(set(re.findall(r"\d+\. (.*?)(?= \d+\. |\n)", listed))) == len(words()) + 500


def test_frequent_words_follow_the_power_law(tokenizer):
    (prompt, *_), (text, *_) = texts(tokenizer, ruler_task("fwe", SECTION, HAYSTACK), 16_000)
    coded = text[text.index("coded words. ") + 13 : text.index("\nQuestion")].split()
    counts = Counter(coded).most_common()
    assert counts[0][0] == "..."
    assert [word for word, _ in counts[1:4]] == list(prompt.answers)
    # In proportion to k to the power of -2, rounded down: the first is known best.
    for rank, (_, count) in enumerate(counts[:12], start=1):
        assert abs(count - counts[0][1] / rank**2) <= 1
    assert [a >= b for (_, a), (_, b) in pairwise(counts)]


def test_too_short_a_length_says_what_the_least_would_take(tokenizer):
    with pytest.raises(EvaluationError, match=r"length 200 is too short for vt: .* take \d+ tokens"):
        next(prompts(ruler_task("vt", SECTION, HAYSTACK), Encoder(tokenizer), 200, 1, 0))


def test_what_the_tokenizer_puts_before_a_text_counts(tokenizer, tmp_path):
    tokenizer.save_pretrained(tmp_path)
    other = load_tokenizer(tmp_path)
    start, mark = other.bos_token_id, other.bos_token
    other.backend_tokenizer.post_processor = TemplateProcessing(single=f"{mark} $A", special_tokens=[(mark, start)])
    for prompt in prompts(ruler_task("niah_single_2", SECTION, HAYSTACK), Encoder(other), 2048, 3, 0):
        text = other.decode(prompt.input_ids, skip_special_tokens=True)
        assert prompt.input_ids.tolist() == other.encode(text)
        assert prompt.input_ids[0] == start
        assert len(prompt.input_ids) + 128 <= 2048


SQUAD = {
    "data": [
        {
            "paragraphs": [
                {
                    "context": f"Article {article}, paragraph {part}: the code is {article}{part}77.",
                    "qas": [
                        {"question": f"Which code has {article}.{part}?", "is_impossible": False,
                         "answers": [{"text": f"{article}{part}77"}] * 2},
                        {"question": "Unknown?", "answers": [], "is_impossible": True},
                    ],
                }
                for part in range(3)
            ]
        }
        for article in range(40)
    ]
}  # fmt: skip
HOTPOTQA = [
    {
        "question": f"Where is {number}?",
        "answer": f"Town {number}",
        "context": [[f"Title {number}.{at}", ["One. ", f"{number} is in Town {number}."]] for at in range(10)],
    }
    for number in range(9)
]


def question_file(path, tree):
    path.write_text(json.dumps(tree))
    return QuestionsSection(path=str(path), sha256=hashlib.sha256(path.read_bytes()).hexdigest())


def test_squad_questions_have_their_paragraph_and_those_of_the_article_first(tokenizer, tmp_path):
    task = read_questions("qa_1", question_file(tmp_path / "squad.json", SQUAD))
    made, read = texts(tokenizer, task, 1500, samples=5)
    for number, (prompt, text) in enumerate(zip(made, read, strict=True)):
        article, part = divmod(number, 3)
        assert f"Question: Which code has {article}.{part}? Answer:" in text
        assert prompt.answers == (f"{article}{part}77",) * 2
        assert all(text.count(f"Article {article}, paragraph {at}:") == 1 for at in range(3))
        numbers = [int(n) for n in re.findall(r"^Document (\d+):$", text, re.MULTILINE)]
        assert numbers == list(range(1, len(numbers) + 1))
        assert len(numbers) > 10
    small = task.draft(2, 100, 0, generator(0)).text
    assert "Article 0, paragraph 0:" in small
    assert len(re.findall("Article 0,", small)) == 2
    everything = task.draft(130, 100, 0, generator(0)).text
    assert len(re.findall("paragraph", everything)) == 130  # 120 and ten of them again


def test_hotpotqa_questions_bring_their_ten_paragraphs(tokenizer, tmp_path):
    task = read_questions("qa_2", question_file(tmp_path / "hotpotqa.json", HOTPOTQA))
    for size in (1, 10, 30):
        text = task.draft(size, 100, 11, generator(0)).text  # the second one again
        assert all(f"Title 2.{at}\nOne. 2 is in Town 2." in text for at in range(10))
        assert len(re.findall(r"^Document", text, re.MULTILINE)) == max(size, 10)
        assert text.endswith("Question: Where is 2? Answer:")


def test_a_file_of_questions_is_known_by_its_digest_and_form(tmp_path):
    section = question_file(tmp_path / "squad.json", SQUAD)
    digest = section.sha256
    with pytest.raises(EvaluationError, match=f"has sha256 {digest}, the recipe says {'0' * 64}"):
        read_questions("qa_1", section.model_copy(update={"sha256": "0" * 64}))
    with pytest.raises(EvaluationError, match="is not as hotpotqa files are"):
        read_questions("qa_2", section)
    with pytest.raises(EvaluationError, match="can't be read: No such file"):
        read_questions("qa_1", section.model_copy(update={"path": "/nowhere.json"}))
    with pytest.raises(EvaluationError, match="no question that can be answered"):
        read_questions("qa_1", question_file(tmp_path / "empty.json", {"data": []}))
