"""The index artifact: read back plainly through pyarrow, against documents whose sentences are known."""

import pickle
from collections import Counter
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest
from scipy.stats import chisquare

from longrecipe_core.corpus import TokenShards, TokenWriter
from longrecipe_core.errors import ArtifactDamagedError, IndexingError
from longrecipe_core.fan_out import Here, Processes
from longrecipe_core.positions.draws import IndexPlan, draw_sample
from longrecipe_core.positions.index import build_index
from longrecipe_core.positions.samples import IndexedSamples
from longrecipe_core.recipe import ContextSection, PositionsSection, SelectionSection
from longrecipe_core.selection import TokenClasses

# Ids 0..99 are words, 100..109 end a sentence, 110..119 hold a digit, 120 is BOS.
BOS = 120
IDS = np.arange(121)
CLASSES = TokenClasses((IDS >= 100) & (IDS < 110), (IDS >= 110) & (IDS < 120), BOS)

TARGET, TRAIN = 96, 32


def document(number, tokens, sentence=None):
    """BOS and sentences of 2..9 tokens (or exactly `sentence`), half of them with a digit."""
    generator = np.random.default_rng(number)
    ids = [BOS] if sentence is None else []
    while len(ids) < tokens:
        words = generator.integers(0, 100, size=(sentence or generator.integers(2, 10)) - 1)
        if generator.random() < 0.5:
            words[0] = generator.integers(110, 120)
        ids += [*words, generator.integers(100, 110)]
    return np.array(ids[:tokens], dtype=np.int32)


def write(directory, documents, tokens_per_shard=250):
    """The tokens artifact of `{document id: ids}`, in several shards."""
    with TokenWriter(directory, "train", tokens_per_shard=tokens_per_shard) as writer:
        for name, ids in documents.items():
            writer.append(name, "0-text", ids)
    return TokenShards(directory, "train")


LENGTHS = [200, 31, 96, 32, 150, 1, 97, 33, 60, 95, 20, 300]
DOCUMENTS = {f"{number:064x}": document(number, tokens) for number, tokens in enumerate(LENGTHS)}
LONG_ENOUGH = [row for row, tokens in enumerate(LENGTHS) if tokens >= TRAIN]


@pytest.fixture(scope="module")
def tokens(tmp_path_factory):
    directory = tmp_path_factory.mktemp("tokens")
    shards = write(directory, DOCUMENTS)
    assert len(list(directory.glob("train-*.arrow"))) > 2
    return shards, directory


def build(
    tokens, output, train=TRAIN, target=TARGET, selection="digits", samples=None, seed=7, engine=None, **positions
):
    return build_index(
        tokens,
        CLASSES,
        output,
        context=ContextSection(target_length=target, train_length=train),
        selection=SelectionSection(strategy=selection),
        positions=PositionsSection(**positions),
        samples=samples,
        seed=seed,
        engine=engine,
    )


def rows_of(output):
    """The whole index as plain lists."""
    tables = [pa.ipc.open_file(str(path)).read_all() for path in sorted(output.glob("*.arrow"))]
    return pa.concat_tables(tables).to_pylist()


def unrolled(row):
    """Token rows and positions of one sample, token by token."""
    rows, positions = [], []
    for token, position, length in zip(row["token_start"], row["position_start"], row["length"], strict=True):
        for i in range(length):
            rows.append(token + i)
            positions.append(position + i)
    return rows, positions


def jumps(values):
    return {i for i in range(1, len(values)) if values[i] != values[i - 1] + 1}


def boundaries(rows, ids):
    """Where in a sample a kept sentence begins: after an end, or where tokens were left out."""
    left_out = jumps(rows)
    after_end = {
        i
        for i in range(1, len(rows))
        if CLASSES.ends_sentence[ids[rows[i - 1]]] and not CLASSES.ends_sentence[ids[rows[i]]]
    }
    return left_out | after_end | {1}  # behind BOS


STRATEGIES = {
    "full": {},
    "rpes": {},
    "pose": {},
    "pose4": {"chunks": 4},
    "longrecipe": {},
    "longrecipe-fixed": {"right_point": 12},
    "cream": {},
}


@pytest.mark.parametrize("selection", ["impactful", "digits", "random", "none"])
@pytest.mark.parametrize(("strategy", "options"), STRATEGIES.items(), ids=STRATEGIES)
def test_every_sample_is_what_its_row_says(tokens, tmp_path, strategy, options, selection):
    shards, directory = tokens
    strategy = strategy.removesuffix("4")
    train = TARGET if strategy == "full" else TRAIN
    counts = build(shards, tmp_path, train, TARGET, selection, samples=40, strategy=strategy, **options)
    table, samples = rows_of(tmp_path), IndexedSamples(tmp_path, directory)
    assert len(table) == len(samples) == counts["samples"] == 40
    documents, most_jumps = list(DOCUMENTS.values()), 0
    for number, row in enumerate(table):
        ids = documents[row["document"]]
        rows, positions = unrolled(row)
        # Exactly the train length, in document order, up to the target length.
        assert len(rows) == train
        assert rows == sorted(set(rows))
        assert 0 <= rows[0] <= rows[-1] < min(len(ids), TARGET)
        assert rows[0] == 0  # BOS
        # Positions rise and stay below the target.
        assert positions == sorted(set(positions))
        assert 0 <= positions[0] <= positions[-1] < TARGET
        assert strategy in ("rpes", "cream") or positions[0] == 0
        # Every run is as long as it can be.
        assert all(length > 0 for length in row["length"])
        assert len(row["length"]) == 1 + len(jumps(rows) | jumps(positions))
        # What the trainer gets.
        got_ids, got_positions = samples[number]
        assert got_ids.dtype == got_positions.dtype == np.int64
        assert got_ids.tolist() == [int(ids[i]) for i in rows]
        assert got_positions.tolist() == positions

        if strategy == "full":
            assert row == {"document": row["document"], "token_start": [0], "position_start": [0], "length": [TARGET]}
        if strategy == "pose":
            assert len(jumps(positions)) < options.get("chunks", 2)
            most_jumps = max(most_jumps, len(jumps(positions)))
        if strategy == "longrecipe":
            # Positions jump between kept sentences only, but for the right point in the first half.
            inside = jumps(positions) - boundaries(rows, ids)
            assert len(inside) <= 1
            assert all(point <= (TRAIN + 1) // 2 and point == min(jumps(positions)) for point in inside)
        if strategy == "longrecipe-fixed":
            assert positions[:12] == list(range(12))
            assert jumps(positions) - boundaries(rows, ids) <= {12}
        if selection == "none":
            assert jumps(rows) <= {1}
    if strategy == "pose":
        assert most_jumps == options.get("chunks", 2) - 1
    runs = sum(len(row["length"]) for row in table)
    assert counts["runs"] == runs
    assert counts["tokens"] == 40 * train
    assert counts["mean_run_length"] == pytest.approx(40 * train / runs)


def test_digits_keeps_anchors(tokens, tmp_path):
    build(tokens[0], tmp_path, samples=60)
    documents = list(DOCUMENTS.values())
    shares = []
    for row in rows_of(tmp_path):
        ids = documents[row["document"]][:TARGET]
        # Number of each token's sentence; BOS is in none.
        sentence = np.concatenate([[-1, 0], np.cumsum(CLASSES.ends_sentence[ids[1:-1]])])
        anchors = {int(s) for s, i in zip(sentence[1:], ids[1:], strict=True) if CLASSES.anchor[i]}
        kept = {int(sentence[i]) for i in unrolled(row)[0][1:]}
        room = TRAIN - 1 - sum(int((sentence == s).sum()) for s in anchors)
        assert kept <= anchors if room <= 0 else anchors <= kept
        shares.append(room <= 0)
    assert 0 < sum(shares) < 60  # both cases were met


def test_the_columns_are_those_of_the_design(tokens, tmp_path):
    build(tokens[0], tmp_path)
    (path,) = tmp_path.iterdir()
    assert path.name == "index-00000.arrow"
    schema = pa.ipc.open_file(str(path)).schema
    assert schema.names == ["document", "token_start", "position_start", "length"]
    assert schema.field("document").type == pa.int64()
    for name in ("token_start", "position_start", "length"):
        assert schema.field(name).type == pa.list_(pa.int32())
    assert schema.metadata is None


def test_short_documents_are_skipped_and_counted(tokens, tmp_path):
    lines = []
    counts = build_index(
        tokens[0],
        CLASSES,
        tmp_path,
        context=ContextSection(target_length=TARGET, train_length=TRAIN),
        selection=SelectionSection(),
        positions=PositionsSection(),
        samples=None,
        seed=1,
        progress=lines.append,
    )
    assert counts["documents"] == len(LENGTHS)
    assert counts["documents_skipped_shorter_than_train_length"] == len(LENGTHS) - len(LONG_ENOUGH) == 3
    assert counts["samples"] == len(LONG_ENOUGH)
    assert sorted(row["document"] for row in rows_of(tmp_path)) == LONG_ENOUGH
    assert [line for line in lines if "warning" not in line] == [
        "index: 4 of 9 documents are cut at context.target_length 96: nothing behind it is trained on",
        "index: 9 of 9 samples",
    ]
    (skipped,) = [line for line in lines if "skipped" in line]
    assert skipped.startswith("index: warning: 3 of 12 documents (25.0%) are skipped: shorter than")


def test_no_document_is_long_enough(tokens, tmp_path):
    with pytest.raises(IndexingError, match=r"none of 12 documents .*train_length 301 .*longest has 300"):
        build(tokens[0], tmp_path / "index", train=301, target=400)
    empty = write(tmp_path / "empty", {})
    with pytest.raises(IndexingError, match="none of 0 documents"):
        build(empty, tmp_path / "index")
    assert not (tmp_path / "index").exists()


def test_more_samples_than_documents_repeat_them_with_new_draws(tokens, tmp_path):
    once = len(LONG_ENOUGH)
    build(tokens[0], tmp_path, samples=3 * once + 4)
    table = rows_of(tmp_path)
    order = [row["document"] for row in table]
    rounds = [order[start : start + once] for start in range(0, 3 * once, once)]
    assert all(sorted(round_) == LONG_ENOUGH for round_ in rounds)
    assert len({tuple(round_) for round_ in rounds}) == 3
    assert len(set(order[3 * once :])) == 4
    for document_row in LONG_ENOUGH:
        drawn = [tuple(row["position_start"]) for row in table if row["document"] == document_row]
        assert len(set(drawn)) == len(drawn)


def test_fewer_samples_than_documents_are_of_different_documents(tokens, tmp_path):
    build(tokens[0], tmp_path / "a", samples=4)
    build(tokens[0], tmp_path / "b", samples=9)
    few, all_ = rows_of(tmp_path / "a"), rows_of(tmp_path / "b")
    assert few == all_[:4]
    assert len({row["document"] for row in few}) == 4


def test_the_order_of_documents_is_uniform(tmp_path):
    """Of three documents, each comes first in a third of the seeds."""
    shards = write(tmp_path / "tokens", {f"{n:064x}": document(n, 12) for n in range(3)})
    first = Counter()
    for seed in range(300):
        build(shards, tmp_path / str(seed), train=8, target=12, samples=1, seed=seed)
        first[rows_of(tmp_path / str(seed))[0]["document"]] += 1
    assert chisquare([first[n] for n in range(3)]).pvalue > 1e-3


# --- who computes it, and in which order the documents lie, changes nothing ----------------------------------


def test_one_worker_and_four_write_the_same_bytes(tokens, tmp_path):
    """1,300 samples are three shards of 512, drawn 64 at a time by whichever worker is free."""
    metrics = []
    for workers, engine in ((1, Here()), (4, Processes(4))):
        metrics.append(build(tokens[0], tmp_path / str(workers), train=8, samples=1300, engine=engine))
        assert metrics[-1]["samples"] == 1300
    assert metrics[0] == metrics[1]
    names = ["index-00000.arrow", "index-00001.arrow", "index-00002.arrow"]
    for workers in ("1", "4"):
        assert sorted(path.name for path in (tmp_path / workers).iterdir()) == names
    for name in names:
        assert (tmp_path / "1" / name).read_bytes() == (tmp_path / "4" / name).read_bytes()
    table, samples = rows_of(tmp_path / "4"), IndexedSamples(tmp_path / "4", tokens[1])
    drawing = replace(plan(), context=ContextSection(target_length=TARGET, train_length=8))
    for number in (0, 63, 64, 511, 512, 1023, 1024, 1299):  # the draws know the sample's number in the whole index
        lists = [table[number][name] for name in ("token_start", "position_start", "length")]
        assert lists == runs(drawing, tokens[0], table[number]["document"], number)
        assert samples[number][1].tolist() == unrolled(table[number])[1]


def plan(strategy="longrecipe", seed=7, **options):
    return IndexPlan(
        classes=CLASSES,
        context=ContextSection(target_length=TARGET, train_length=TRAIN),
        selection=SelectionSection(),
        positions=PositionsSection(strategy=strategy, **options),
        seed=seed,
    )


def runs(*arguments):
    """Without the document's row and the counts."""
    (_, *lists), _ = draw_sample(*arguments)
    assert all(part.dtype == np.int32 for part in lists)
    return [part.tolist() for part in lists]


@pytest.mark.parametrize("strategy", ["rpes", "pose", "longrecipe"])
def test_where_a_document_lies_doesnt_change_its_draws(tokens, tmp_path, strategy):
    names = list(DOCUMENTS)
    turned = write(tmp_path, {name: DOCUMENTS[name] for name in reversed(names)}, tokens_per_shard=10_000)
    assert len(list(tmp_path.iterdir())) == 1
    for sample, row in enumerate(LONG_ENOUGH):
        here = runs(plan(strategy), tokens[0], row, sample)
        assert here == runs(plan(strategy), turned, len(names) - 1 - row, sample)


def test_seed_sample_number_and_document_each_change_the_draws(tmp_path):
    same = document(5, 200)
    shards = write(tmp_path, {"a" * 64: same, "b" * 64: same})
    first = runs(plan(), shards, 0, 0)
    assert first == runs(plan(), shards, 0, 0)
    assert first != runs(plan(), shards, 0, 1)
    assert first != runs(replace(plan(), seed=8), shards, 0, 0)
    assert first != runs(plan(), shards, 1, 0)


# --- reading -------------------------------------------------------------------------------------------------


def test_samples_can_be_sent_to_another_process(tokens, tmp_path):
    build(tokens[0], tmp_path)
    samples = IndexedSamples(tmp_path, tokens[1])
    before = [part.tolist() for part in samples[2]]
    again = pickle.loads(pickle.dumps(samples))
    assert [part.tolist() for part in again[2]] == before
    assert len(pickle.dumps(samples)) < 2000  # paths, not tables


def test_samples_outside_the_index_and_an_empty_directory(tokens, tmp_path):
    build(tokens[0], tmp_path / "index")
    samples = IndexedSamples(tmp_path / "index", tokens[1])
    for number in (-1, len(samples)):
        with pytest.raises(IndexError, match=f"sample {number} of an index of {len(samples)}"):
            samples[number]
    (tmp_path / "empty").mkdir()
    with pytest.raises(ArtifactDamagedError, match="index-"):
        len(IndexedSamples(tmp_path / "empty", tokens[1]))
