"""The report's sections on scores and selection: what is told is shown, what isn't leaves no trace."""

import re

import numpy as np

from longrecipe_core.evaluation.report.data import impact_section, selection_section
from longrecipe_core.evaluation.report.page import render_section
from longrecipe_core.scoring.classes import class_table, plot_classes, write_classes

CELL = '<td(?: class="name")?>(.*?)</td>'


def drawn(selection):
    return render_section(selection_section(selection))


def test_impact_section_shows_the_class_table_beside_the_paper(tmp_path):
    classes = ["numbers", "words", "pronouns", "numbers"]
    count, score, top = np.array([3, 1000, 0, 1]), np.array([6.0, -50.0, 0.0, 2.0]), np.array([2, 1, 0, 1])
    table = class_table(classes, count, score, top)
    write_classes(tmp_path, table)
    plot_classes(table, tmp_path)
    page = render_section(impact_section(tmp_path))
    rows = [re.findall(CELL, line) for line in re.findall("<tr>(<td.*?)</tr>", page)]
    assert rows == [
        ["numbers", "2", "4", "+2.000", "0.750", "0.004", "≈ 0.40"],
        ["words", "1", "1,000", "-0.050", "0.250", "0.996", ""],
    ]
    assert 'src="data:image/png;base64,iVBOR' in page


def test_no_top_occurrence_at_all_is_no_error():
    table = class_table(["words"], np.array([2]), np.array([0.0]), np.array([0]))
    assert table.column("share_of_top").to_pylist() == [0.0]


def test_selection_section_shows_what_there_is():
    assert selection_section({}) is None
    page = drawn({"tokens_kept": 12345, "share_kept": 0.256, "something_else": 7})
    assert re.findall(CELL, page) == ["tokens kept", "12,345", "of those read", "25.6%"]
    assert "<svg" not in page
    page = drawn({"histogram": [0.25, 0.75], "histogram_available": [0.5, 0.5]})
    heights = [float(height) for height in re.findall(r'height="([0-9.]+)" opacity', page)]
    assert heights == [80.0, 40.0, 80.0, 120.0]
    assert "<table" not in page
    assert len(re.findall("<rect", drawn({"histogram": [0.1] * 10}))) == 20
