"""Stage `report` on a run made by hand: what the page and the card say, read by an HTML parser and the hub's client."""

import html
import itertools
import json
import math
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
import yaml
from huggingface_hub import ModelCard
from report_material import (
    HOSTILE,
    MODELS,
    SAMPLES,
    TARGET,
    TRAIN,
    evaluation_rows,
    make_recipe,
)

from longrecipe_core.artifacts.one_file import read_file
from longrecipe_core.errors import ArtifactDamagedError
from longrecipe_core.evaluation.report.card import base_model, license_of
from longrecipe_core.positions.index_shards import IndexShards


class Page(HTMLParser):
    """Tables by the heading above them, texts, tags, and attributes that could lead out of the page."""

    def __init__(self, text):
        super().__init__()
        self.tables, self.headings, self.tags, self.links, self.preformatted = [], [], [], [], []
        self._cell = self._heading = None
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.links += [value for name, value in attributes if name in ("src", "href", "srcset", "action", "data")]
        if tag == "table":
            self.tables.append((list(self.headings[-1:]), []))
        elif tag == "tr":
            self.tables[-1][1].append([])
        elif tag in ("td", "th", "h2", "h3", "summary", "pre"):
            self._cell = ""

    def handle_data(self, data):
        if self._cell is not None:
            self._cell += data

    def handle_endtag(self, tag):
        if tag in ("td", "th"):
            self.tables[-1][1][-1].append(self._cell)
        elif tag in ("h2", "h3", "summary"):
            self.headings.append(self._cell)
        elif tag == "pre":
            self.preformatted.append(self._cell)

    def table(self, heading):
        return next(rows for headings, rows in self.tables if headings == [heading])


@pytest.fixture(scope="module")
def made(reported):
    return reported


@pytest.fixture(scope="module")
def text(made):
    return (made.report / "report.html").read_text()


@pytest.fixture(scope="module")
def page(text):
    return Page(text)


def test_the_page_needs_nothing_else(page, text):
    assert page.links
    assert all(link.startswith(("data:", "#")) for link in page.links)
    assert set(page.tags).isdisjoint({"script", "iframe", "object", "embed", "base", "form"})
    style = text[text.index("<style>") : text.index("</style>")]
    assert "url(" not in style
    assert "@import" not in style


def test_texts_of_the_user_stay_texts(page, text):
    assert "b" not in page.tags
    assert html.escape(HOSTILE, quote=False).split("alert")[0] in text
    cells = [cell for _, rows in page.tables for row in rows for cell in row]
    assert HOSTILE in cells
    assert yaml.safe_load(page.preformatted[-1])["corpus"]["sources"][0]["path"] == HOSTILE
    assert f"Stage extend was adopted from {HOSTILE}" in html.unescape(text)


def test_every_measure_is_in_a_table_with_its_error(page):
    rows = evaluation_rows()
    shown = {
        "Mean NLL at positions, nats per token": ("nll", 3),
        "Mean NLL with a context of so many tokens, nats per token": ("context_nll", 3),
        "Passkeys found, share, by distance": ("passkey", 3),
        "Copying: tokens of a copied span that are predicted, share": ("copying", 3),
        "Scores": ("benchmark", 3),
        "Perplexity at length": ("ppl", 3),
        "LongPPL (key tokens of base) at length": ("long_ppl", 3),
        "Mean score by length": ("ruler_mean", 1),
        "vt: score by length": ("ruler", 1),
        "Effective length": ("effective_length", 0),
        "something_new": ("something_new", 3),
    }
    for heading, (measure, decimals) in shown.items():
        _, *lines = page.table(heading)
        assert [line[0] for line in lines] == MODELS, heading
        for model, *cells in lines:
            own = [row for row in rows if (row["model"], row["measure"]) == (model, measure)]
            expected = [f"{row['value']:.{decimals}f}" for row in own]
            errors = [f" ± {row['standard_error']:.{decimals}f}" if "standard_error" in row else "" for row in own]
            assert cells == [a + b for a, b in zip(expected, errors, strict=True)], heading


def test_heat_maps_of_needles(page):
    heading = "Needles, multikey: score by depth (down) and length (across)"
    maps = [rows for headings, rows in page.tables if headings == [heading]]
    assert len(maps) == len(MODELS)
    for model, (head, *lines) in zip(MODELS, maps, strict=True):
        assert head == ["", "256", "512", "1,024"]
        for depth, line in zip((0.0, 0.5, 1.0), lines, strict=True):
            scores = [
                row["value"]
                for row in evaluation_rows()
                if (row["model"], row["measure"], row.get("task"), row.get("depth"))
                == (model, "needle", "multikey", depth)
            ]
            assert line == [f"{depth:.0%}", *(f"{score:.0f}" for score in scores)]


def test_differences_are_paired(made, page):
    title = f"Mean NLL minus that of “{MODELS[1]}”, nats per token: below 0 is better"
    assert title in (made.report / "README.md").read_text()  # a table alone says nothing
    _, *lines = page.table(title)
    losses = {
        (row["model"], row["start"]): np.array([value / count for _, value, count in row["documents"]])
        for row in evaluation_rows()
        if row["measure"] == "nll"
    }
    assert [line[0] for line in lines] == [model for model in MODELS if model != MODELS[1]]
    for model, *cells in lines:
        for start, cell in zip(range(0, TARGET, 128), cells, strict=True):
            difference = losses[model, start] - losses[MODELS[1], start]
            assert cell == f"{difference.mean():+.3f} ± {difference.std(ddof=1) / 6**0.5:.3f}"


def test_cost_and_lineage_name_every_stage(made, page):
    names = ["base", "tokenize", "index", "replay", "anneal", "merge", "evaluate"]
    cost = {row[0]: row[1:] for row in page.table("Cost")[1:]}
    assert sorted(cost) == sorted([*names, "extend", "all"])
    assert cost["anneal"][1] == f"{40 * 4 * TRAIN:,}"
    # 6 per parameter that is multiplied with, and 6 x layers x query width x length for causal attention.
    layer = 2 * 64 * (64 + 32) + 3 * 64 * 172 + 2 * 64
    per_token = 6 * (2 * layer + 64 + 300 * 64) + 6 * 2 * 64 * TRAIN
    assert float(cost["anneal"][2]) == pytest.approx(per_token * 40 * 4 * TRAIN, rel=0.01)
    assert cost["extend"][2] == ""  # adopted: no training of ours
    lineage = {row[0]: row for row in page.table("Lineage")[1:]}
    assert set(lineage) == {*names, "extend", "outside"}
    for name in [*names, "extend"]:
        manifest = made.store.manifest_of(made.refs[name])
        assert lineage[name][1] == manifest.fingerprint[:16]
        assert lineage[name][2] == manifest.created[:19].replace("T", " ")
    assert lineage["extend"][5] == f"adopted from {HOSTILE}"
    assert [row[0] for row in page.table("Loss curves")[1:]] == ["base", "anneal"]


def test_coverage_is_of_the_runs_own_index(made, page):
    shards = IndexShards(Path(made.refs["index"].uri))
    assert len(shards) == SAMPLES
    distances, seen = [], set()
    for sample in range(SAMPLES):
        _, _, starts, lengths = shards.runs(sample)
        places = [p for start, length in zip(starts, lengths, strict=True) for p in range(start, start + length)]
        distances += [later - earlier for earlier, later in itertools.combinations(places, 2)]
        seen.update(places)
    own = page.table("Position coverage")[1]
    assert own[0] == "this run: longrecipe"
    assert own[2] == f"{np.mean(distances):,.1f}"
    assert own[4:] == [f"{len(seen) / TARGET:.2%}", f"{len(set(distances)) / (TARGET - 1):.2%}"]


def test_the_hub_reads_the_card(made):
    card = ModelCard.load(made.report / "README.md")
    data = card.data
    assert (data.library_name, data.pipeline_tag, data.model_name) == ("transformers", "text-generation", "by-hand")
    assert data.tags == ["long-context", "longrecipe", "arxiv:2409.00509"]
    assert data.get("base_model") is None  # trained here: no model of the hub
    merged = [row for row in evaluation_rows() if row["model"] == MODELS[-1]]
    results = {(one.dataset_type, one.metric_name): one.metric_value for one in data.eval_results}
    for row in merged:
        if row["measure"] == "nll":
            name = f"mean NLL (nats per token) at positions {row['start']}-{row['end']}"
            assert results["longrecipe-validation", name] == pytest.approx(row["value"], abs=1e-6)
    assert all(math.isfinite(value) for value in results.values())
    assert results["ruler", "RULER, effective length (tokens)"] == 256
    assert results["arc_easy", "acc_norm"] == 0.29
    assert "![mean NLL by position](nll.png)" in card.text
    assert {"nll.png", "needles.png"} <= {path.name for path in made.report.iterdir()}
    assert made.run.store not in str(card)  # where somebody's store is, is nobody's business
    recipe = card.text[card.text.index("## Recipe") :].partition("````yaml\n")[2].rpartition("````")[0]
    assert yaml.safe_load(recipe) == json.loads(made.recipe.model_dump_json())


def test_base_model_and_license():
    tree = yaml.safe_load(make_recipe().to_yaml())
    tree["base"] = None
    recipes = {path: {**tree, "model": {"path": path}} for path in ("some/model", "/some/model", "a/b/c")}
    found = {path: base_model(type(make_recipe()).parse(yaml.safe_dump(one))) for path, one in recipes.items()}
    assert found == {"some/model": "some/model", "/some/model": None, "a/b/c": None}
    assert license_of(b"---\nlicense: apache-2.0\ntags: []\n---\n# x\n") == "apache-2.0"
    for card in (None, b"# x", b"---\nlicense: [1]\n---\n", b"---\n: [\n---\n", b"---\nlicense: 'a b'\n---\n", b"\xff"):
        assert license_of(card) is None


def test_one_file_of_an_artifact_is_read_and_checked(made):
    ref = made.refs["merge"]
    assert json.loads(read_file(made.store, ref, "config.json"))["hidden_size"] == 64
    assert read_file(made.store, ref, "../manifest.json") is None
    path = Path(ref.uri, "tokenizer.json")
    before = path.read_bytes()
    for change in (lambda: path.write_bytes(b"[]"), path.unlink):
        change()
        with pytest.raises(ArtifactDamagedError, match=r"tokenizer\.json"):
            read_file(made.store, ref, "tokenizer.json")
        path.write_bytes(before)
