"""A comparison's tables in a page of the documentation, made from the rows beside it.

`python -m longrecipe_core.evaluation.seeds_document docs/comparison.md docs/comparison/rows.tsv REFERENCE` puts them
between the marks there.
"""

import sys
from collections.abc import Sequence
from pathlib import Path

from longrecipe_core.evaluation.measurements import Row
from longrecipe_core.evaluation.seeds_rows import read_tsv
from longrecipe_core.evaluation.seeds_table import tables
from longrecipe_core.recipe.comparison import BASE

BEGIN = "<!-- made by python -m longrecipe_core.evaluation.seeds_document from the rows: don't edit by hand -->"
END = "<!-- end of what is made -->"


def put_into(text: str, rows: Sequence[Row], reference: str | None) -> str:
    """`text` with the tables of `rows` between its two marks.

    Raises:
        ValueError: The marks are not there.
    """
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"no place for the tables: they stand between {BEGIN} and {END}")
    made = "\n\n".join(table.markdown() for table in tables(rows, BASE, reference))
    return f"{before}{BEGIN}\n\n{made}\n\n{END}{after}"


def main(arguments: Sequence[str]) -> int:
    """Page, rows, and the variant that the others are held against."""
    page, rows, reference = Path(arguments[0]), Path(arguments[1]), arguments[2]
    text = put_into(page.read_text(encoding="utf-8"), read_tsv(rows), reference)
    page.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
