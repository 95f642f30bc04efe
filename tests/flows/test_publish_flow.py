"""The flow `publish` and the command, on a run that is in the store."""

import json
import sys

import pytest
import yaml
from huggingface_hub import ModelCard
from transformers import AutoModelForCausalLM

from flows import cli
from flows.publish import publish
from longrecipe_core.errors import PublishError

pytestmark = pytest.mark.usefixtures("prefect_api")


def command(monkeypatch, capsys, *arguments):
    """Exit code, last line on stdout, text on stderr."""
    monkeypatch.setattr(sys, "argv", ["longrecipe", "publish", *map(str, arguments)])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    told = capsys.readouterr()
    return ended.value.code, (told.out.splitlines() or [""])[-1], told.err


def test_the_flow_copies_the_model_with_its_card(first_run, recipe_file, tmp_path):
    store, _ = first_run
    done = publish(target=str(tmp_path / "model"), recipe=str(recipe_file), store=str(store))
    assert (done.target, done.sent) == (str(tmp_path / "model"), done.files)
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "model")
    assert model.config.max_position_embeddings == 128
    card = ModelCard.load(tmp_path / "model" / "README.md")
    assert card.data.model_name == "seconds"
    assert len(card.data.eval_results) == 4
    with pytest.raises(PublishError, match="neither recipe nor model"):
        publish(target=str(tmp_path / "other"))


def test_the_command_takes_a_recipe_or_a_uri(first_run, recipe_file, tmp_path, monkeypatch, capsys):
    store, summary = first_run
    code, line, _ = command(monkeypatch, capsys, recipe_file, tmp_path / "a", "--store", store)
    assert code == 0
    first = json.loads(line)
    code, line, _ = command(monkeypatch, capsys, summary.uri("merge"), tmp_path / "b")
    assert code == 0
    assert json.loads(line) == first | {"target": str(tmp_path / "b")}
    code, line, _ = command(monkeypatch, capsys, summary.uri("report"), tmp_path / "b")
    assert (code, json.loads(line)["sent"]) == (0, 0)


def test_each_refusal_is_one_line_with_its_exit_code(first_run, recipe_file, tmp_path, monkeypatch, capsys):
    store, summary = first_run
    (tmp_path / "wrong.yaml").write_text(yaml.safe_dump({"name": "x"}))
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "notes.txt").write_text("mine")
    here = ("--store", store)
    cases = [
        ((recipe_file, tmp_path / "x", *here, "--set", "seed=5"), 1, "no report of this recipe"),
        ((recipe_file, tmp_path / "full", *here, "--replace"), 1, "holds something that is no model (notes.txt)"),
        ((summary.uri("tokenize"), tmp_path / "x"), 1, "artifact of kind tokens"),
        ((recipe_file, "s3://key:secret@bucket/x", *here), 1, "credentials don't belong in a URL"),
        ((recipe_file, "hf://x", *here), 1, "hf://ORGANIZATION/NAME"),
    ]
    for arguments, expected, text in cases:
        code, _, told = command(monkeypatch, capsys, *arguments)
        assert (code, told.count("\n")) == (expected, 1), told
        assert text in told
        assert "secret" not in told
    code, _, told = command(monkeypatch, capsys, tmp_path / "wrong.yaml", tmp_path / "x", *here)
    assert code == 2, told
    assert not (tmp_path / "x").exists()
