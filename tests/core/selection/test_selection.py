"""Sentence ends from real tokenizers, and the rule of paper.md, section 1, on documents whose sentences are known."""

from collections import Counter
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chisquare
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from longrecipe_core.errors import IndexingError
from longrecipe_core.selection import TokenClasses, select_tokens, sentence_starts, token_classes

SPECIAL = {"bos_token": "<s.7>", "eos_token": "[END.]"}
RESERVED = "<|reserved_8.|>"


def spans_kept(*arguments):
    selected = select_tokens(*arguments)
    return selected.starts, selected.lengths


def rng(seed=0):
    return np.random.Generator(np.random.Philox(seed))


def wrapped(backend):
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, **SPECIAL)
    tokenizer.add_tokens([AddedToken(RESERVED, special=True)])
    return tokenizer


@pytest.fixture(scope="module")
def byte_level():
    """Byte-level BPE with Llama 3's way of cutting, under which `.` and a line break merge, and so do `.` and `com`."""
    backend = Tokenizer(models.BPE())
    cut = r"[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(cut), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=420,
        special_tokens=list(SPECIAL.values()),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    texts = [
        "It cost 25 dollars.\nSee example.com now!\n\n",
        'He said "no."\n',
        "    return a\n",
        "Grüße。 x",
    ] * 20
    backend.train_from_iterator(texts, trainer)
    return wrapped(backend)


@pytest.fixture(scope="module")
def sentencepiece():
    """Unigram with `▁` for a space and bytes for what it lacks, as in Llama 2's and Mistral's tokenizers."""
    pieces = [
        "<unk>",
        *SPECIAL.values(),
        "▁",
        "▁He",
        "▁paid",
        "▁3.14",
        "▁3.",
        ".",
        ".com",
        "▁v2",
        "!",
        "?!",
        '."',
        "a",
    ]
    table = [(piece, -float(i)) for i, piece in enumerate(pieces)]
    table += [(f"<0x{byte:02X}>", -50.0) for byte in range(256)]
    backend = Tokenizer(models.Unigram(table, unk_id=0, byte_fallback=True))
    backend.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
    backend.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    return wrapped(backend)


@pytest.fixture(scope="module")
def wordpiece():
    words = [
        "[UNK]",
        *SPECIAL.values(),
        "he",
        "paid",
        "3.14",
        "##.",
        "##.com",
        "##!",
        "##...",
        "x",
        "##2",
        "day",
    ]
    backend = Tokenizer(models.WordPiece({word: i for i, word in enumerate(words)}, unk_token="[UNK]"))
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    backend.decoder = decoders.WordPiece()
    return wrapped(backend)


def by_entry(tokenizer, flags):
    return {entry for entry, i in tokenizer.get_vocab().items() if flags[i]}


def sentences(tokenizer, text, **options):
    """The text of each sentence, by the code under test."""
    ids = np.array(tokenizer.encode(text, add_special_tokens=False))
    starts = sentence_starts(ids, token_classes(tokenizer, **options).ends_sentence).tolist()
    return [tokenizer.decode(ids[a:b]) for a, b in zip(starts, [*starts[1:], len(ids)], strict=True)]


def test_byte_level_entries(byte_level):
    vocabulary = byte_level.get_vocab()
    assert {".Ċ", ".com", '."Ċ', "!ĊĊ"} <= set(vocabulary)  # what this test is about did merge
    classes = token_classes(byte_level)
    assert classes.ends_sentence.shape == classes.anchor.shape == (len(byte_level),)
    assert classes.ends_sentence.dtype == classes.anchor.dtype == bool
    ends, digits = by_entry(byte_level, classes.ends_sentence), by_entry(byte_level, classes.anchor)
    assert {".", "!", "?", "Ċ", ".Ċ", '."Ċ', "!ĊĊ"} <= ends
    special = {*SPECIAL.values(), RESERVED}
    # Counted here on the raw entries: no letter or digit may stand behind the end; Ċ is the line break.
    plain = {
        e
        for e in vocabulary
        if e not in special and any(c in ".!?Ċ" for c in e) and not any(map(str.isalnum, e.replace("Ċ", "")))
    }
    assert ends == plain
    assert not {".com", *special} & ends
    assert digits == {e for e in vocabulary if e not in special and any(c in "0123456789" for c in e)}
    assert "25" in digits
    assert classes.bos == byte_level.bos_token_id


def test_byte_level_sentences(byte_level):
    text = 'It cost 25 dollars.\nSee example.com now! He said "no."\n\nWhy?!... Or 😀'
    assert sentences(byte_level, text) == [
        "It cost 25 dollars.\n",
        "See example.com now!",
        ' He said "no."\n\n',
        "Why?!...",
        " Or 😀",
    ]


def test_which_characters_end_a_sentence_is_an_option(byte_level):
    text = "Now! Or.\nThen? No"
    assert sentences(byte_level, text, sentence_ends="!") == ["Now!", " Or.\nThen? No"]
    assert sentences(byte_level, text, sentence_ends="?]^-") == ["Now! Or.\nThen?", " No"]
    assert sentences(byte_level, text, sentence_ends="\n") == ["Now! Or.\n", "Then? No"]
    assert sentences(byte_level, text, sentence_ends=".") == ["Now! Or.\n", "Then? No"]


def test_sentencepiece_entries(sentencepiece):
    classes = token_classes(sentencepiece)
    bytes_that_end = {f"<0x{ord(c):02X}>" for c in ".!?\n"}
    assert by_entry(sentencepiece, classes.ends_sentence) == {".", "▁3.", "!", "?!", '."'} | bytes_that_end
    bytes_of_digits = {f"<0x{ord(c):02X}>" for c in "0123456789"}
    assert by_entry(sentencepiece, classes.anchor) == {"▁3.14", "▁3.", "▁v2"} | bytes_of_digits
    assert classes.bos == sentencepiece.bos_token_id
    text = "He paid 3.14.\na.com v2?! He"
    assert sentencepiece.decode(sentencepiece.encode(text, add_special_tokens=False)) == text
    assert sentences(sentencepiece, text) == ["He paid 3.14.\n", "a.com v2?!", "He"]


def test_wordpiece_entries(wordpiece):
    classes = token_classes(wordpiece)
    assert by_entry(wordpiece, classes.ends_sentence) == {"##.", "##!", "##..."}
    assert by_entry(wordpiece, classes.anchor) == {"3.14", "##2"}
    assert sentences(wordpiece, "he paid 3.14. x.com day! he... x2") == [
        "he paid 3.14.",
        "x.com day!",
        "he...",
        "x2",
    ]


def test_a_tokenizer_without_bos(byte_level):
    plain = PreTrainedTokenizerFast(tokenizer_object=byte_level.backend_tokenizer)
    assert plain.bos_token is None
    assert token_classes(plain).bos is None


@settings(max_examples=200)
@given(st.lists(st.booleans(), min_size=1, max_size=40), st.integers(0, 5))
def test_sentence_starts_are_those_of_a_plain_loop(ends, shift):
    flags = np.array([False] * 3 + [True] * 3)  # several entries of each kind
    ids = [(3 if end else 0) + (i + shift) % 3 for i, end in enumerate(ends)]
    expected = [0]
    for i in range(1, len(ends)):
        if ends[i - 1] and not ends[i]:
            expected.append(i)
    starts = sentence_starts(np.array(ids), flags)
    assert starts.dtype == np.int64
    assert starts.tolist() == expected


# --- selection -----------------------------------------------------------------------------------------------

WORD, END, DIGIT, BOS = range(4)
CLASSES = TokenClasses(np.array([False, True, False, False]), np.array([False, False, True, False]), BOS)


def document(shapes, bos=False, unfinished=False):
    """Ids, and of every sentence its start, length and whether it has a digit, from `(words, digit, ends)` each."""
    ids, spans = [BOS] if bos else [], []
    for number, (words, digit, ends) in enumerate(shapes):
        last = unfinished and number == len(shapes) - 1
        tokens = [DIGIT if digit and i == words // 2 else WORD for i in range(words)] + [END] * (0 if last else ends)
        spans.append((len(ids), len(tokens), digit))
        ids += tokens
    return np.array(ids, dtype=np.int32), spans


shapes = st.lists(st.tuples(st.integers(1, 9), st.booleans(), st.integers(1, 3)), min_size=1, max_size=30)


@settings(max_examples=400)
@given(shapes, st.booleans(), st.booleans(), st.floats(0, 1), st.integers(0, 2**32 - 1), st.data())
def test_the_rule(shapes, bos, unfinished, share, seed, data):
    strategy = data.draw(st.sampled_from(["impactful", "digits", "random"]))
    ids, spans = document(shapes, bos, unfinished)
    budget = max(1, round(share * len(ids)))
    starts, lengths = spans_kept(strategy, ids, budget, CLASSES, rng(seed))
    assert starts.dtype == lengths.dtype == np.int64
    assert lengths.sum() == budget
    assert (lengths > 0).all()
    kept = list(zip(starts.tolist(), lengths.tolist(), strict=True))
    if bos and budget > 1:
        assert kept.pop(0) == (0, 1)
        budget -= 1
    elif bos:
        return  # one token: no room for a BOS and anything else
    assert [start for start, _ in kept] == sorted({start for start, _ in kept})
    whole = {start: (length, digit) for start, length, digit in spans}
    assert all(start in whole for start, _ in kept)

    cut = [start for start, length in kept if length != whole[start][0]]
    excess = sum(whole[start][0] for start, _ in kept) - budget
    assert len(cut) == (excess > 0)
    assert all(length <= whole[start][0] for start, length in kept)
    last = kept[-1][0]
    if excess < whole[last][0]:
        assert cut in ([], [last])  # the last sentence wherever it is long enough
    if strategy != "random":
        anchors = {start for start, _, digit in spans if digit}
        if sum(whole[start][0] for start in anchors) >= budget:
            assert {start for start, _ in kept} <= anchors
        else:
            assert anchors <= {start for start, _ in kept}
            assert not set(cut) & anchors - {last}


@settings(max_examples=100)
@given(shapes, st.booleans(), st.floats(0, 1), st.integers(0, 2**32 - 1))
def test_none_is_one_run(shapes, bos, share, seed):
    ids, _ = document(shapes, bos)
    budget = max(2, round(share * len(ids)))
    starts, lengths = spans_kept("none", ids, budget, CLASSES, rng(seed))
    rows = [row for start, length in zip(starts, lengths, strict=True) for row in range(start, start + length)]
    assert len(rows) == budget
    if bos:
        assert rows.pop(0) == 0
    assert rows == list(range(rows[0], rows[0] + len(rows)))
    # Cut at the sentences inside it, so that strategies which skip between sentences can.
    inside = [row for row in rows[1:] if ids[row - 1] == END and ids[row] != END]
    assert starts.tolist()[bos:] == [rows[0], *inside]


def share_of_subsets(strategy, spans, ids, budget, draws):
    seen = Counter()
    number = {start: i for i, (start, _, _) in enumerate(spans)}
    generator = rng(11)
    for _ in range(draws):
        starts, _ = spans_kept(strategy, ids, budget, CLASSES, generator)
        seen[tuple(number[start] for start in starts.tolist())] += 1
    return seen


def test_anchors_kept_are_a_uniform_subset():
    """Seven anchors among other sentences, room for three: each of the 35 subsets is equally likely."""
    ids, spans = document([(3, digit, 1) for digit in [1, 0, 1, 1, 0, 1, 1, 0, 1, 1]])
    anchors = [i for i, (_, _, digit) in enumerate(spans) if digit]
    seen = share_of_subsets("digits", spans, ids, 12, 7000)
    expected = list(combinations(anchors, 3))
    assert set(seen) == set(expected)
    assert chisquare([seen[key] for key in expected]).pvalue > 1e-3


def test_the_others_are_topped_up_with_a_uniform_subset():
    """Two anchors, room for four: each pair of the six others is equally likely."""
    ids, spans = document([(3, digit, 1) for digit in [0, 1, 0, 0, 0, 1, 0, 0]])
    seen = share_of_subsets("digits", spans, ids, 16, 4500)
    expected = [tuple(sorted((1, 5, *pair))) for pair in combinations([0, 2, 3, 4, 6, 7], 2)]
    assert set(seen) == set(expected)
    assert chisquare([seen[key] for key in expected]).pvalue > 1e-3


def test_random_doesnt_look_at_the_text():
    """Two of six sentences have a digit; with room for two, each of the 15 pairs is equally likely."""
    ids, spans = document([(3, digit, 1) for digit in [1, 0, 0, 1, 0, 0]])
    seen = share_of_subsets("random", spans, ids, 8, 6000)
    expected = list(combinations(range(6), 2))
    assert set(seen) == set(expected)
    assert chisquare([seen[key] for key in expected]).pvalue > 1e-3


def test_random_makes_half_the_sentences_anchors():
    """The draws are `random() < 1/2` per sentence: a generator that says 0 and 0.99 in turn shows who is one."""

    class Scripted:
        def random(self, size):
            assert size == 6
            return np.array([0.0, 0.5, 0.49, 0.99, 0.499, 0.5])

        def permutation(self, values):
            return values

    ids, spans = document([(3, False, 1)] * 6)
    starts, _ = spans_kept("random", ids, 16, CLASSES, Scripted())
    assert starts.tolist() == [spans[i][0] for i in (0, 1, 2, 4)]  # the anchors 0, 2, 4 and the first other


@pytest.mark.parametrize("strategy", ["digits", "random", "none"])
def test_all_of_the_document_is_used_alike(strategy):
    """30 % of 400 sentences of many lengths: no part of the document is kept more often than another."""
    generator = np.random.default_rng(5)
    words, digits = generator.geometric(0.1, 400), generator.random(400) < 0.5
    ids, _ = document([(int(n), bool(d), 1) for n, d in zip(words, digits, strict=True)])
    budget, draws = int(0.3 * len(ids)), 300
    kept, ours, means = np.zeros(len(ids)), rng(6), []
    for _ in range(draws):
        rows = np.concatenate(
            [np.arange(s, s + n) for s, n in zip(*spans_kept(strategy, ids, budget, CLASSES, ours), strict=True)]
        )
        kept[rows] += 1
        means.append(rows.mean() / len(ids))
    # `none` keeps one run, whose middle is uniform on 0.15..0.85: standard error 0.2 / sqrt(300) = 0.012.
    assert abs(np.mean(means) - 0.5) < (0.05 if strategy == "none" else 0.02)
    if strategy != "none":
        tenths = [part.mean() / draws for part in np.array_split(kept, 10)]
        assert min(tenths) > 0.2
        assert max(tenths) < 0.4


def test_one_giant_sentence_doesnt_crowd_out_the_others():
    """Cutting the rest of the document off behind a giant in front would leave nothing but the giant."""
    ids, _ = document([(200, True, 1)] + [(3, True, 1)] * 50)
    others = []
    for seed in range(200):
        starts, lengths = spans_kept("digits", ids, 150, CLASSES, rng(seed))
        assert lengths.sum() == 150
        if starts[0] == 0:
            others.append(starts.size - 1)
    # The giant is drawn as the 1st to 38th of 51, after 0 to 37 others, each equally likely.
    assert len(others) > 100
    assert abs(np.mean(others) - 18.5) < 4


def test_none_starts_anywhere():
    ids, _ = document([(4, False, 1)] * 3, bos=True)  # 15 tokens after BOS
    generator, seen = rng(7), Counter()
    for _ in range(4000):
        starts, _ = spans_kept("none", ids, 9, CLASSES, generator)
        seen[int(starts[1])] += 1
    assert set(seen) == set(range(1, 9))
    assert chisquare([seen[key] for key in sorted(seen)]).pvalue > 1e-3


def test_a_bos_further_in_is_no_bos():
    ids = np.array([WORD, BOS, WORD, END, WORD, WORD, DIGIT, END])
    starts, lengths = spans_kept("digits", ids, 4, CLASSES, rng())
    assert (starts.tolist(), lengths.tolist()) == ([4], [4])
    unknown = TokenClasses(CLASSES.ends_sentence, CLASSES.anchor, None)
    starts, lengths = spans_kept("digits", np.array([BOS, WORD, END, DIGIT, END]), 2, unknown, rng())
    assert (starts.tolist(), lengths.tolist()) == ([3], [2])


@pytest.mark.parametrize("strategy", ["digits", "random", "none"])
def test_the_whole_document_when_it_just_fits(strategy):
    ids, spans = document([(2, True, 1), (5, False, 2), (1, False, 1)], bos=True)
    starts, lengths = spans_kept(strategy, ids, len(ids), CLASSES, rng())
    assert starts.tolist() == [0] + [start for start, _, _ in spans]
    assert lengths.tolist() == [1] + [length for _, length, _ in spans]
    with pytest.raises(IndexingError, match=f"{len(ids)} tokens .* {len(ids) + 1}"):
        select_tokens(strategy, ids, len(ids) + 1, CLASSES, rng())


def test_an_unknown_strategy_names_the_known_ones():
    with pytest.raises(IndexingError, match="'zebra' is unknown; allowed: impactful, digits, random, none"):
        select_tokens("zebra", np.array([WORD, END]), 1, CLASSES, rng())


def test_same_generator_same_choice():
    ids, _ = document([(3, True, 1)] * 40)
    for strategy in ("digits", "random", "none"):
        first, second, other = (spans_kept(strategy, ids, 50, CLASSES, rng(seed)) for seed in (1, 1, 2))
        assert [part.tobytes() for part in first] == [part.tobytes() for part in second]
        assert [part.tobytes() for part in first] != [part.tobytes() for part in other]
