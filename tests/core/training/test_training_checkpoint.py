"""Training checkpoints of a single process: whole or not there, the newest kept, nothing lost without a word."""

import json
import shutil
import threading
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from polling import PATIENCE

from longrecipe_core.errors import TrainingError
from longrecipe_core.training import checkpoint
from longrecipe_core.training.checkpoint import Checkpoints, complete_steps, made_from
from longrecipe_core.training.checkpoint_tensors import ModelState

LAYOUT = {"world size": 1}


def make(directory, layout=LAYOUT, steps=100, seed=0):
    torch.manual_seed(seed)
    model = torch.nn.Linear(4, 4)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1)
    (directory / "logs").mkdir(exist_ok=True, parents=True)
    (directory / "logs" / "metrics.jsonl").touch()
    checkpoints = Checkpoints(
        directory / "checkpoints",
        ModelState(model, optimizer),
        kept=2,
        accelerator=SimpleNamespace(
            process_index=0, num_processes=1, device=torch.device("cpu"), wait_for_everyone=lambda: None
        ),
        steps=steps,
        layout=layout,
        metrics=directory / "logs" / "metrics.jsonl",
        inputs={"base": "abc"},
        timeout=timedelta(seconds=PATIENCE),
    )
    return checkpoints, model, optimizer


def take_step(model, optimizer):
    model(torch.randn(2, 4)).square().sum().backward()
    optimizer.step()
    optimizer.zero_grad()


def test_what_is_staged_is_written_and_training_goes_on(tmp_path):
    checkpoints, model, optimizer = make(tmp_path)
    assert checkpoints.resume() == 0
    take_step(model, optimizer)
    expected = model.weight.detach().clone()
    checkpoints.stage(1)
    drawn = torch.rand(3)
    take_step(model, optimizer)  # before a byte is written
    checkpoints.write()
    checkpoints.finish()
    assert not torch.equal(model.weight, expected)
    other, restored, moments = make(tmp_path, seed=7)
    assert other.resume() == 1
    assert torch.equal(restored.weight, expected)
    assert torch.equal(torch.rand(3), drawn)
    assert moments.state[restored.weight]["step"] == 1
    assert made_from(tmp_path / "checkpoints" / "step-1") == {"base": "abc"}


def test_only_the_newest_are_kept_and_a_partial_one_is_none(tmp_path):
    checkpoints, model, optimizer = make(tmp_path)
    for step in (1, 2, 3):
        take_step(model, optimizer)
        checkpoints.stage(step)
        checkpoints.write()
    checkpoints.finish()
    (tmp_path / "checkpoints" / "step-9.partial").mkdir()
    assert complete_steps(tmp_path / "checkpoints") == [2, 3]
    again, _, _ = make(tmp_path)
    assert again.resume() == 3
    assert sorted(path.name for path in (tmp_path / "checkpoints").iterdir()) == ["step-2", "step-3"]


@pytest.mark.parametrize("when", ["next", "end"])
def test_an_error_of_the_background_write_is_raised_later(tmp_path, when):
    checkpoints, model, optimizer = make(tmp_path)
    take_step(model, optimizer)
    (tmp_path / "checkpoints").write_text("a file where the directory should be")
    checkpoints.stage(1)
    checkpoints.write()
    with pytest.raises(TrainingError, match=r"checkpoints/step-1 could not be written: .*Not a directory"):
        checkpoints.stage(2) if when == "next" else checkpoints.finish()
    checkpoints.finish()  # told once


def test_another_layout_goes_on_and_says_so(tmp_path, capsys):
    checkpoints, model, optimizer = make(tmp_path)
    take_step(model, optimizer)
    checkpoints.save(1)
    assert make(tmp_path)[0].resume() == 1
    assert capsys.readouterr().out == ""
    assert make(tmp_path, layout={"world size": 2})[0].resume() == 1
    assert capsys.readouterr().out.splitlines() == [
        "step 1 was reached with world size 1, now 2: the loss curve goes on, but not bit for bit"
    ]
    with pytest.raises(TrainingError, match="was made with steps 100, this run has 50"):
        make(tmp_path, steps=50)[0].resume()


def test_rank_0_takes_no_directory_away_that_other_ranks_make(tmp_path, monkeypatch):
    """The slowest order: one rank has made it, another sees that it exists, rank 0 comes, the other looks again."""
    checkpoints, model, optimizer = make(tmp_path)
    checkpoints.resume()
    take_step(model, optimizer)
    partial = tmp_path / "checkpoints" / "step-1.partial"
    partial.mkdir(parents=True)
    made_first, failed = partial.stat().st_ino, []
    exists, look_again = threading.Event(), threading.Event()

    def other_rank():
        try:
            partial.mkdir(parents=True, exist_ok=True)  # as torch's writer does
        except OSError as error:
            failed.append(error)

    other = threading.Thread(target=other_rank)
    is_dir = Path.is_dir

    def slow_is_dir(path):
        if threading.current_thread() is other:
            exists.set()
            assert look_again.wait(PATIENCE)
        return is_dir(path)

    def before_the_other_looks(function):
        def called(*arguments, **options):
            result = function(*arguments, **options)
            look_again.set()
            other.join(PATIENCE)
            return result

        return called

    monkeypatch.setattr(Path, "is_dir", slow_is_dir)
    other.start()
    assert exists.wait(PATIENCE)
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "rmtree", before_the_other_looks(shutil.rmtree))
        patch.setattr(checkpoint, "write", before_the_other_looks(checkpoint.write))
        checkpoints.save(1)
    assert failed == []
    assert (tmp_path / "checkpoints" / "step-1").stat().st_ino == made_first


def test_a_step_that_stands_is_not_written_again(tmp_path):
    checkpoints, model, optimizer = make(tmp_path)
    take_step(model, optimizer)
    checkpoints.save(1)
    written = tmp_path / "checkpoints" / "step-1" / "progress.json"
    before = written.stat().st_mtime_ns
    checkpoints.save(1)
    again, _, _ = make(tmp_path)
    again.resume()
    again.save(1)
    assert written.stat().st_mtime_ns == before
    assert json.loads(written.read_text())["step"] == 1
    checkpoints, _, _ = make(Path(tmp_path / "other"))
    checkpoints.save(0)
    assert complete_steps(tmp_path / "other" / "checkpoints") == []
