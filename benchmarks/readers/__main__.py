"""An extended model in other people's readers, at a length beyond its base's window.

Plain transformers, lm-eval and llama.cpp score the same tokens as our evaluation does; each figure is the difference of
the mean NLL in nats per token.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TRANSFORMERS_VERBOSITY"] = "error"

import numpy as np

from benchmarks.figures import Figure, Report
from benchmarks.readers import llama_cpp
from longrecipe_core.corpus import load_tokenizer
from longrecipe_core.evaluation.nll import token_nll
from longrecipe_core.modeling import load_model

READERS = ("transformers", "lm-eval", "llama.cpp")
PROGRAMS = {"transformers": "plain.py", "lm-eval": "lm_eval_reader.py"}


def main() -> int:
    """Measure, print a line per figure, write `results/readers.json`; 1 when a reader differs by more than 1e-4."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.readers", description=__doc__)
    parser.add_argument("model", type=Path, help="a model's directory")
    parser.add_argument(
        "text", type=Path, nargs="+", help="files of one text, of twice the length in tokens for llama.cpp"
    )
    parser.add_argument("--length", type=int, default=12_288, help="tokens (default: 12288)")
    parser.add_argument(
        "--only", choices=READERS, nargs="+", default=list(READERS), help="some readers; writes no file"
    )
    chosen = parser.parse_args()
    first = chosen.length // 2
    report = Report("readers", {"model": chosen.model.name, "length": chosen.length})
    with tempfile.TemporaryDirectory(prefix="readers-") as scratch:
        text = Path(scratch) / "text.txt"
        text.write_text("\n\n".join(path.read_text(encoding="utf-8") for path in chosen.text), encoding="utf-8")
        ours = own_nll(chosen.model, text, chosen.length, first)
        report.add(Figure("own_nll", ours, "nats/token", detail={"count": chosen.length - 1 - first}))
        for reader in chosen.only:
            if reader == "llama.cpp":
                theirs = llama_cpp.mean_nll(chosen.model, text, chosen.length, Path(scratch))
            else:
                theirs = by_program(PROGRAMS[reader], chosen.model, text, chosen.length, first)
            name = reader.replace("-", "_").replace(".", "_")
            report.add(Figure(f"{name}_difference", abs(theirs - ours), "nats/token", "<= 1e-4", {"nll": theirs}))
    if set(chosen.only) == set(READERS):
        print(f"written to {report.write()}", file=sys.stderr)
    return report.exit_code()


def own_nll(model: Path, text: Path, length: int, first: int) -> float:
    """As stage `evaluate` measures it."""
    tokens = load_tokenizer(model).encode(text.read_text(encoding="utf-8"))[:length]
    if len(tokens) < length:
        raise SystemExit(f"{text}: {len(tokens)} tokens, {length} are needed")
    nll = token_nll(load_model(model).eval(), np.array([tokens]), np.array([length]), bf16=False, chunk=512)
    return float(nll[0, first:].mean())


def by_program(name: str, model: Path, text: Path, length: int, first: int) -> float:
    """In a process that runs from another directory, where this package's modules are not found by accident."""
    program = Path(__file__).with_name(name)
    command = [sys.executable, "-P", str(program), str(model.resolve()), str(text), str(length), str(first)]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, cwd=text.parent)
    return float(json.loads(done.stdout.splitlines()[-1])["nll"])


if __name__ == "__main__":
    sys.exit(main())
