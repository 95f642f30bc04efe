"""The documentation against the code: the made table, keys that are named, links that must lead somewhere."""

import re
import unicodedata
from pathlib import Path
from typing import Any

import pytest

from longrecipe_core.recipe import Recipe
from longrecipe_core.recipe.document import BEGIN, END, put_into, recipe_reference

ROOT = Path(__file__).parents[3]
# From its argparse, at every commit that was read.
REFERENCE_ARGUMENTS = [
    "batch-size",
    "gradient-accumulate-every",
    "epoch",
    "learning-rate",
    "data_path",
    "output-dir",
    "wandb",
    "seed",
    "model",
    "seq-length",
    "model-base-length",
    "target-length",
    "setting",
    "right_points-path",
    "fs_PI-path",
    "rts-path",
    "rss-path",
    "log-path",
    "stage",
    "num_proc",
    "parallel_mode",
]
PAGES = sorted([*(ROOT / "docs").glob("*.md"), ROOT / "README.md", ROOT / "AGENTS.md"])


def schema_keys() -> set[str]:
    """Every dotted key, sections included; the entries of a list under N."""
    schema = Recipe.model_json_schema()

    def below(node: dict[str, Any], prefix: str) -> set[str]:
        found = set()
        for name, field in node.get("properties", {}).items():
            key = f"{prefix}{name}"
            found.add(key)
            for reference in re.findall(r"'\$ref': '#/\$defs/(\w+)'", str(field)):
                step = ".N." if "items" in str(field) and field.get("type") == "array" else "."
                found |= below(schema["$defs"][reference], key + step)
        return found

    return below(schema, "")


def without_blocks(text: str) -> str:
    return re.sub(r"^```.*?^```", "", text, flags=re.DOTALL | re.MULTILINE)


def anchors(text: str) -> set[str]:
    """The names that GitHub gives to headings."""
    found = set()
    for heading in re.findall(r"^#+ +(.+?) *$", without_blocks(text), re.MULTILINE):
        kept = [c for c in heading.lower() if c in " -_" or unicodedata.category(c)[0] in "LN"]
        found.add("".join(kept).replace(" ", "-"))
    return found


def argument_rows() -> list[list[str]]:
    """Cells of the body rows of every table in the page on the reference's arguments."""
    lines = (ROOT / "docs/reference-arguments.md").read_text(encoding="utf-8").splitlines()
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if line.startswith("|")]
    return [row for row in rows if row[2] != "our key" and not set(row[2]) <= set("-")]


def test_recipe_page_holds_the_made_reference():
    text = (ROOT / "docs/recipe.md").read_text(encoding="utf-8")
    held = text.partition(BEGIN)[2].partition(END)[0].strip()
    assert held == recipe_reference().strip(), f"run: {BEGIN[10:-25]}"
    assert put_into(text) == text


def test_reference_names_every_key():
    held = recipe_reference()
    for key in schema_keys():
        section, _, name = key.rpartition(".")
        path = r"(\.N)?\.".join(section.split("."))  # entries of a list
        heading = r"### Top level" if not section else rf"### [^\n]*`{path}(\.N)?`[^\n]*"
        table = re.search(rf"^{heading}\n(.*?)(?=^### |\Z)", held, re.DOTALL | re.MULTILINE)
        assert table is not None, section
        assert f"\n| `{name}` |" in table.groups()[-1], key


def test_reference_tells_defaults_and_bounds():
    held = recipe_reference()
    assert "| `seed` | whole number | `2027` | at least 0 |" in held
    assert "| `validation_share` | number | `0.05` | at least 0, at most 1 |" in held
    assert "| `learning_rate` | number | required | above 0 |" in held
    assert '| `type` | text | `"ntk"` | `none`, `theta`, `ntk`, `linear`, `yarn`, `llama3` |' in held


def test_putting_needs_both_marks():
    with pytest.raises(ValueError, match="no place for the reference"):
        put_into(f"text\n{BEGIN}\n")


def test_every_argument_row_has_keys_of_the_schema_or_says_none():
    rows, known = argument_rows(), schema_keys()
    assert len(rows) > 40
    for row in rows:
        assert len(row) == 4, row
        named = re.findall(r"`([^`]+)`", row[2])
        assert named or row[2] == "None", row
        assert set(named) <= known, f"{row[0]}: {sorted(set(named) - known)}"


@pytest.mark.parametrize("argument", REFERENCE_ARGUMENTS)
def test_every_argument_of_the_reference_has_a_row(argument: str):
    assert any(f"`--{argument}`" in row[0] for row in argument_rows())


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_relative_links_resolve(page: Path):
    text = page.read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^)\s]+)\)", without_blocks(text)):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = target.partition("#")
        goal = (page.parent / path).resolve() if path else page
        assert goal.exists(), f"{page.name}: {target}"
        assert goal.is_relative_to(ROOT), f"{page.name}: {target} leads out of the repository"
        if anchor:
            assert anchor in anchors(goal.read_text(encoding="utf-8")), f"{page.name}: {target}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_keys_given_to_set_exist(page: Path):
    for key in re.findall(r"--set '?([a-z][a-z_.0-9]*\.[a-z_.0-9]+)=", page.read_text(encoding="utf-8")):
        if key != "section.key":
            assert re.sub(r"\.\d+\.", ".N.", key) in schema_keys(), f"{page.name}: {key}"


def test_every_cuda_test_is_listed():
    page = (ROOT / "docs/gpu.md").read_text(encoding="utf-8")
    for path in sorted((ROOT / "tests").rglob("test_*.py")):
        source = path.read_text(encoding="utf-8")
        for name in re.findall(r"^@pytest\.mark\.cuda\n(?:@.*\n)*def (\w+)", source, re.MULTILINE):
            assert f"`{path.relative_to(ROOT).as_posix()}::{name}`" in page
