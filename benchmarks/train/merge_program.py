"""`python -m benchmarks.train.merge_program ours|whole FIRST LAST OUTPUT`: a program that does nothing but merge.

Piece by piece as the stage does, or with both models in memory. It prints its peak above its imports, in MB.
"""

import sys
from pathlib import Path

from benchmarks.train.peak import peak_mb, reset_peak


def merge_pieces(sources: list[Path], output: Path) -> None:
    """Ours."""
    from longrecipe_core.merging import merge_checkpoints

    before = reset_peak()
    merge_checkpoints([(str(source), 0.5) for source in sources], str(output))
    print(peak_mb() - before)


def merge_whole(sources: list[Path], output: Path) -> None:
    """The plain way: load both, average, save."""
    import torch
    from transformers import AutoModelForCausalLM

    before = reset_peak()
    first, last = (AutoModelForCausalLM.from_pretrained(source, dtype=torch.bfloat16) for source in sources)
    with torch.no_grad():
        for one, other in zip(first.parameters(), last.parameters(), strict=True):
            other.copy_((0.5 * one.float()).add_(0.5 * other.float()))
    last.save_pretrained(output)
    print(peak_mb() - before)


if __name__ == "__main__":
    {"ours": merge_pieces, "whole": merge_whole}[sys.argv[1]]([Path(name) for name in sys.argv[2:4]], Path(sys.argv[4]))
