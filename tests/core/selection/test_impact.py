"""The impact table, and which of its entries are anchors."""

from fractions import Fraction

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from longrecipe_core.errors import ArtifactDamagedError, IndexingError
from longrecipe_core.recipe import SelectionSection
from longrecipe_core.selection.impact import FILE, SCHEMA, anchor_tokens, read_impact, share_of, write_impact


def table(rows):
    """Rows of score, count, share."""
    return pa.table(
        {
            "token_id": list(range(len(rows))),
            "token": [f"<{number}>" for number in range(len(rows))],
            "token_class": ["words"] * len(rows),
            "score": [float(score) for score, _, _ in rows],
            "count": [count for _, count, _ in rows],
            "share": [float(share) for _, _, share in rows],
        },
        schema=SCHEMA,
    )


def test_round_trip_and_damage(tmp_path):
    rows = table([(1.5, 3, 0.5), (-2, 1, 0), (0, 0, 0)])
    write_impact(tmp_path, rows)
    assert read_impact(tmp_path).equals(rows)
    data = (tmp_path / FILE).read_bytes()
    (tmp_path / FILE).write_bytes(data[: len(data) // 2])
    with pytest.raises(ArtifactDamagedError, match="not a whole Arrow file"):
        read_impact(tmp_path)
    with pytest.raises(ArtifactDamagedError):
        read_impact(tmp_path / "nowhere")
    other = pa.table({"token_id": pa.array([1], pa.int32())})
    with pa.OSFile(str(tmp_path / FILE), "wb") as sink, pa.ipc.new_file(sink, other.schema) as writer:
        writer.write_table(other)
    with pytest.raises(ArtifactDamagedError, match=r"columns \['token_id'\]"):
        read_impact(tmp_path)


def test_what_stands_in_every_sentence_is_no_anchor():
    rows = table([(9, 9, 1.0), (8, 9, 0.9), (7, 9, 0.8), (1, 9, 0.1), (0, 9, 0.0)])
    classes = ["punctuation", "white space", "special", "words", "numbers"]
    rows = rows.set_column(2, SCHEMA.field("token_class"), pa.array(classes))
    for rank_by in ("share", "score"):
        anchors = anchor_tokens(rows, SelectionSection(top_share=0.5, rank_by=rank_by))
        assert np.flatnonzero(anchors).tolist() == [3]  # half of the two that are left


ROWS = st.lists(
    st.tuples(st.integers(-3, 3), st.integers(0, 4), st.sampled_from([0, 0.25, 0.5, 1])), min_size=1, max_size=30
)


@given(ROWS, st.integers(1, 100), st.sampled_from(["score", "share"]), st.integers(1, 3))
def test_anchors_are_the_top_share_of_the_seen_types(rows, percent, rank_by, minimum):
    selection = SelectionSection(top_share=percent / 100, rank_by=rank_by, minimum_count=minimum)
    column = {"score": 0, "share": 2}[rank_by]
    ranked = sorted((-row[column], number) for number, row in enumerate(rows) if row[1] >= minimum)
    if not ranked:
        with pytest.raises(IndexingError, match=f"selection.minimum_count {minimum}"):
            anchor_tokens(table(rows), selection)
        return
    wanted = -(-percent * len(ranked) // 100)  # rounded up, in whole numbers
    found = anchor_tokens(table(rows), selection)
    assert found.dtype == bool
    assert np.flatnonzero(found).tolist() == sorted(number for _, number in ranked[:wanted])


def test_a_share_is_the_decimal_number_of_the_recipe():
    assert 0.07 * 100 > 7
    assert share_of(0.07, 100) == 7
    assert share_of(0.2, 128_256) == 25_652
    assert share_of(1.0, 5) == 5
    assert share_of(1e-9, 5) == 1
    assert Fraction(str(1e-9)) == Fraction(1, 10**9)
