"""The reference's pickles: hand-made positions come back, and nothing but lists of whole numbers is read."""

import fractions
import itertools
import json
import os
import pickle
import pickletools
import random
import shutil
import struct
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flows.cli import parser
from longrecipe_core.artifacts import ArtifactStore, fingerprint
from longrecipe_core.corpus import TokenShards, TokenWriter
from longrecipe_core.errors import ArtifactDamagedError, IndexingError
from longrecipe_core.positions.reference_import import import_index
from longrecipe_core.positions.reference_pickle import read_lists, read_numbers
from longrecipe_core.positions.samples import IndexedSamples

TRAIN, TARGET = 40, 120
TOKENS = [60, 40, 200, 41]


@pytest.fixture(scope="module")
def tokens(tmp_path_factory):
    directory = tmp_path_factory.mktemp("tokens")
    with TokenWriter(directory, "train", tokens_per_shard=90) as writer:
        for number, count in enumerate(TOKENS):
            writer.append(f"{number:064x}", "0-arrow", np.arange(count, dtype=np.int32) + 1000 * number)
    return TokenShards(directory, "train")


def positions_as_the_reference_does(generator, sentence=7):
    """Sentences at sorted places among the skipped positions, the first at 0."""
    starts = [0, *range(sentence, TRAIN, sentence)]
    places = [0, *sorted(generator.sample(range(1, TARGET - TRAIN + len(starts)), len(starts) - 1))]
    listed = []
    for number, start in enumerate(starts):
        listed += [places[number] - number + i for i in range(start, min(start + sentence, TRAIN))]
    return listed


def write(path, value, protocol=None):
    path.write_bytes(value if isinstance(value, bytes) else pickle.dumps(value, protocol))
    return path


def imported(tokens, directory, lists, points=None, protocol=None):
    positions = write(directory / "PI.pkl", lists, protocol)
    right = None if points is None else write(directory / "RTS.pkl", points, protocol)
    return import_index(positions, right, tokens, directory / "out", train_length=TRAIN, target_length=TARGET)


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize("with_points", [True, False])
def test_round_trip(tokens, tmp_path, protocol, with_points):
    generator = random.Random(protocol)
    lists = [positions_as_the_reference_does(generator) for _ in TOKENS]
    points = [generator.randint(1, (TRAIN + 1) // 2) for _ in TOKENS] if with_points else None
    counts = imported(tokens, tmp_path, lists, points, protocol)
    assert (counts["documents"], counts["samples"], counts["tokens"]) == (4, 4, 160)
    samples, runs = IndexedSamples(tmp_path / "out", tokens.directory), 0
    for row, listed in enumerate(lists):
        expected = listed if points is None else [*range(points[row]), *listed[points[row] :]]
        ids, positions = samples[row]
        assert positions.tolist() == expected
        assert ids.tolist() == [1000 * row + i for i in range(TRAIN)]
        assert samples.runs(row)[0] == row
        runs += 1 + sum(b != a + 1 for a, b in itertools.pairwise(expected))
    assert counts["runs"] == runs
    assert sorted(path.name for path in tmp_path.iterdir() if path.suffix != ".pkl") == ["out"]


@pytest.mark.parametrize("place", ["directory", "artifact"])
def test_the_command(tokens, tmp_path, capsys, place):
    """Tokens from a plain directory, and from a store, which checks them."""
    source = tokens.directory
    if place == "artifact":
        copy, store = shutil.copytree(source, tmp_path / "copy"), ArtifactStore(str(tmp_path / "store"))
        source = store.commit("tokens", fingerprint("tokens"), copy, recipe={}, seconds=0.0).uri
    lists = [positions_as_the_reference_does(random.Random(row)) for row in range(len(TOKENS))]
    files = ["--positions", str(write(tmp_path / "PI.pkl", lists)), "--tokens", str(source)]
    lengths = ["--train-length", str(TRAIN), "--target-length", str(TARGET)]
    parsed = parser().parse_args(["import-index", *files, *lengths, str(tmp_path / "out")])
    assert parsed.command(parsed) == 0
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["samples"] == len(TOKENS)
    samples = IndexedSamples(tmp_path / "out", tokens.directory)
    assert [samples[row][1].tolist() for row in range(len(TOKENS))] == lists
    if place == "artifact":
        (shard, *_) = sorted(Path(source).glob("train-*.arrow"))
        content = bytearray(shard.read_bytes())
        place = content.index(np.arange(10, 20, dtype=np.int32).tobytes())  # ids of document 0; Arrow can't notice
        content[place] ^= 1
        shard.write_bytes(content)
        parsed = parser().parse_args(["import-index", *files, *lengths, str(tmp_path / "again")])
        with pytest.raises(ArtifactDamagedError, match=shard.name):
            parsed.command(parsed)
        assert not (tmp_path / "again").exists()


def test_long_lists_of_many_batches(tmp_path):
    lists = [list(range(n)) for n in (0, 1, 999, 1000, 1001, 2500)] + [[n, 2**31 - 1] for n in range(2100)]
    for protocol in range(6):
        path = write(tmp_path / f"{protocol}.pkl", lists, protocol)
        assert [part.tolist() for part in read_lists(path)] == lists
        # A list that stands twice is written once and looked up, which the reference's never are.
        with pytest.raises(IndexingError, match=r"operation (BIN)?GET"):
            list(read_lists(write(path, [lists[1], lists[2], lists[1]], protocol)))


def test_empty_lists_are_skipped_and_counted(tokens, tmp_path):
    listed = list(range(TRAIN))
    counts = imported(tokens, tmp_path, [listed, [], list(listed), []], [1, 2, 3, 4])
    assert (counts["documents"], counts["documents_skipped_empty_list"], counts["samples"]) == (4, 2, 2)
    samples = IndexedSamples(tmp_path / "out", tokens.directory)
    assert [samples.runs(number)[0] for number in range(2)] == [0, 2]


@pytest.mark.parametrize(
    ("change", "message"),
    {
        "short": (lambda lists: lists[2].pop(), "PI.pkl: list 2: has 39 positions, not the train length 40"),
        "falls": (lambda lists: lists[1].__setitem__(7, 6), "PI.pkl: list 1: position 6 follows 6 at 7"),
        "far": (lambda lists: lists[0].__setitem__(39, 120), "list 0: position 120 is not below the target length 120"),
        "more": (lambda lists: lists.append(list(range(40))), "more than 4 lists, but .* has 4 train documents"),
        "less": (lambda lists: lists.pop(), "PI.pkl: 3 lists, but .* has 4 train documents"),
        "none": (lambda lists: lists.clear(), "PI.pkl: 0 lists, but"),
        "empty": (lambda lists: [part.clear() for part in lists], "holds no positions in its 4 lists"),
    }.values(),
)
def test_lists_that_dont_fit(tokens, tmp_path, change, message):
    lists = [list(range(TRAIN)) for _ in TOKENS]
    change(lists)
    with pytest.raises(IndexingError, match=message):
        imported(tokens, tmp_path, lists)
    assert [path.name for path in tmp_path.iterdir()] == ["PI.pkl"]


@pytest.mark.parametrize(
    ("points", "message"),
    [
        ([1, 1, 1], "RTS.pkl: 3 right points, and none for list 3"),
        ([1] * 5, "RTS.pkl: 5 right points for the 4 lists of .*PI.pkl"),
        ([1, 41, 1, 1], "RTS.pkl: right point 41 of list 1 is above the train length 40"),
        ([1, -1, 1, 1], "RTS.pkl: byte .*: -1; allowed"),
        ([[1], [1], [1], [1]], "RTS.pkl: holds a list of lists"),
        (7, "RTS.pkl: byte .*: the pickle does not hold one list"),
    ],
)
def test_right_points_that_dont_fit(tokens, tmp_path, points, message):
    with pytest.raises(IndexingError, match=message):
        imported(tokens, tmp_path, [list(range(TRAIN)) for _ in TOKENS], points)


def test_right_points_at_the_ends(tokens, tmp_path):
    listed = list(range(TARGET - TRAIN, TARGET))
    imported(tokens, tmp_path, [list(listed) for _ in TOKENS], [0, 1, TRAIN - 1, TRAIN])
    samples = IndexedSamples(tmp_path / "out", tokens.directory)
    for row, point in enumerate([0, 1, TRAIN - 1, TRAIN]):
        assert samples[row][1].tolist() == [*range(point), *listed[point:]]


def test_a_short_document(tmp_path):
    with TokenWriter(tmp_path / "tokens", "train") as writer:
        writer.append("a" * 64, "0-arrow", np.arange(39, dtype=np.int32))
    shards = TokenShards(tmp_path / "tokens", "train")
    with pytest.raises(IndexingError, match=r"list 0: has 40 positions, its document only 39 tokens"):
        imported(shards, tmp_path, [list(range(TRAIN))])


def test_an_output_that_is_there(tokens, tmp_path):
    (tmp_path / "out").mkdir()
    imported(tokens, tmp_path, [list(range(TRAIN)) for _ in TOKENS])  # an empty directory will do
    with pytest.raises(IndexingError, match="out: is there already"):
        imported(tokens, tmp_path, [list(range(TRAIN)) for _ in TOKENS])


# --- what else a pickle can hold -----------------------------------------------------------------------------


class Plain:
    pass


def refused(tmp_path, value, protocol=None):
    path = write(tmp_path / "bad.pkl", value, protocol)
    messages = []
    for read in (lambda path: list(read_lists(path)), read_numbers):
        with pytest.raises(IndexingError, match=r"bad\.pkl: ") as caught:
            read(path)
        messages.append(str(caught.value))
        assert len(messages[-1]) < 300 + len(str(path))
        assert "\n" not in messages[-1]
    return messages[0]


VALUES = {
    "object": Plain(),
    "global": len,  # not print, which ray replaces
    "fraction": fractions.Fraction(1, 2),
    "numpy": np.int64(3),
    "tuple": (1, 2),
    "dictionary": {1: 2},
    "set": {1},
    "text": "a",
    "bytes": b"a",
    "float": 1.0,
    "true": True,
    "false": False,
    "none": None,
    "negative": -1,
    "large": 2**31,
    "huge": 1 << 5000,
}


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize("name", VALUES)
def test_other_values_at_every_depth(tmp_path, name, protocol):
    value = VALUES[name]
    for whole in (value, [value], [1, value], [[1, 2], [value]], [[1, value, 2]]):
        refused(tmp_path, whole, protocol)


def test_code_is_not_run(tmp_path):
    ran = tmp_path / "ran"

    class Touch:
        def __reduce__(self):
            return os.mkdir, (str(ran),)

    for protocol in range(6):
        for whole in (Touch(), [Touch()], [[1], [Touch()]]):
            message = refused(tmp_path, whole, protocol)
            assert "operation " in message
    by_hand = b"cos\nmkdir\n(S'" + str(ran).encode() + b"'\ntR."
    assert "operation GLOBAL" in refused(tmp_path, by_hand)
    assert not ran.exists()
    pickle.loads(by_hand)  # it would have
    assert ran.exists()


def test_every_operation_but_a_few_is_refused(tmp_path):
    """By Python's own table: what is not about lists and whole numbers."""
    allowed = {"INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "EMPTY_LIST", "LIST", "APPEND"}
    allowed |= {"APPENDS", "MARK", "STOP", "PROTO", "FRAME", "MEMOIZE", "PUT", "BINPUT", "LONG_BINPUT"}
    seen = 0
    for operation in pickletools.opcodes:
        if operation.name not in allowed:
            argument = b"\0" * 9 if operation.code in "\x8a\x8e\x96" or operation.arg else b""
            if operation.arg is not None and operation.arg.n < 0:
                argument = {pickletools.UP_TO_NEWLINE: b"'1'\n'1'\n"}.get(operation.arg.n, b"\0" * 9)
            message = refused(tmp_path, b"]" + operation.code.encode("latin1") + argument + b".")
            assert f"operation {operation.name}," in message or "1'" in message, message
            seen += 1
    assert seen > 40


HAND_MADE = {
    "empty": b"",
    "only a stop": b".",
    "cut in a number": pickle.dumps([[1, 70_000]])[:-4],
    "no stop": b"\x80\x04]",
    "two pickles": pickle.dumps([[1]]) + pickle.dumps([[2]]),
    "not a pickle": b"hello, world",
    "items without list": b"(K\x01e.",
    "append without list": b"K\x01K\x02a.",
    "appends without mark": b"]K\x01e.",
    "pop from nothing": b"a.",
    "mark as item": b"]((e.",
    "two results": b"]]].",
    "a number": b"K\x01.",
    "numbers and lists": b"](K\x01]e.",
    "lists and numbers": b"](](K\x01eK\x01e.",
    "three deep": pickle.dumps([[[1]]]),
    "itself": b"]q\x00h\x00a.",
    "text of a huge length": b"]\x8d" + struct.pack("<Q", 1 << 62) + b"x.",
    "number of a huge length": b"]\x8b" + struct.pack("<i", 1 << 30) + b"x.",
    "digits without end": b"]L" + b"9" * 100_000 + b"L\na.",
    "persistent": b"]Pname\na.",
}


@pytest.mark.parametrize("name", HAND_MADE)
def test_damaged_and_hostile_files(tmp_path, name):
    refused(tmp_path, HAND_MADE[name])


def test_a_frame_or_memo_place_of_any_size_costs_nothing(tmp_path):
    data = b"\x80\x04\x95" + struct.pack("<Q", 1 << 40) + b"](]r\xff\xff\xff\xff(K\x05K\x06ee."
    assert [part.tolist() for part in read_lists(write(tmp_path / "a.pkl", data))] == [[5, 6]]


def test_deep_nesting(tmp_path):
    assert "100001 items" in refused(tmp_path, b"]" * 3_000_000 + b".")
    assert "three deep" in refused(tmp_path, b"]" * 90_000 + b"a" * 89_999 + b".")
    assert "100001 items" in refused(tmp_path, b"](" + b"K\x01" * 200_000 + b"e.")


def test_a_missing_file_and_a_directory(tmp_path):
    for path in (tmp_path / "missing.pkl", tmp_path):
        with pytest.raises(IndexingError, match=f"{path}: can't be read"):
            read_numbers(path)


@settings(max_examples=300)
@given(st.data())
def test_a_changed_byte_gives_lists_of_numbers_or_an_error(tmp_path_factory, data):
    path = tmp_path_factory.mktemp("fuzz") / "a.pkl"
    lists = data.draw(st.lists(st.lists(st.integers(0, 90_000), max_size=6), max_size=5))
    whole = bytearray(pickle.dumps(lists, data.draw(st.integers(0, 5))))
    for _ in range(data.draw(st.integers(1, 3))):
        whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(
        bytes(whole[: data.draw(st.integers(0, len(whole)))]) if data.draw(st.booleans()) else bytes(whole)
    )
    try:
        read = [part.tolist() for part in read_lists(path)]
    except IndexingError:
        return
    assert all(type(number) is int and 0 <= number < 2**31 for part in read for number in part)
