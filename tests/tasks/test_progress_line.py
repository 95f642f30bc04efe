"""What a training's progress says of its last rows."""

import json

import pytest

from longrecipe_core.training.metrics_file import TAIL_BYTES, last_metrics, read_metrics
from tasks.progress import duration, training_line


def row(step, **more):
    return {"step": step, "steps": 100, "tokens": 1000, "loss": 2.5, "seconds": 2.0} | more


def test_step_loss_speed_and_time_left():
    rows = [row(39, seconds=1.0), row(40, seconds=3.0, loss=2.34121)]
    # 2,000 tokens in 4 s; 60 steps of 2 s each.
    assert training_line(rows) == "step 40 of 100, loss 2.3412, 500 tokens/s, 2 min left"
    assert training_line([row(100)]) == "step 100 of 100, loss 2.5000, 500 tokens/s"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0 s"), (89, "89 s"), (90, "2 min"), (3599, "1 h 00 min"), (11100, "3 h 05 min"), (187200, "2 d 04 h")],
)
def test_durations(seconds, text):
    assert duration(seconds) == text


def test_the_last_rows_of_a_long_file_are_read_and_a_cut_line_is_left_out(tmp_path):
    path = tmp_path / "metrics.jsonl"
    assert last_metrics(path) == []
    path.write_text("".join(json.dumps(row(step)) + "\n" for step in range(1, 3001)) + '{"step": 3001, "st')
    assert path.stat().st_size > 5 * TAIL_BYTES
    rows = last_metrics(path)
    assert rows == read_metrics(path)[-len(rows) :]
    assert len(rows) > 20
    assert rows[-1]["step"] == 3000
