"""The replay stage: instruction samples in, rows of one length for annealing out (paper, section 4.3)."""

import tempfile
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np

from longrecipe_core.corpus.arrow_shards import TOKENS_PER_SHARD, Int32Array
from longrecipe_core.corpus.bad_data import total
from longrecipe_core.corpus.encoding import SourceEncoder, source_label
from longrecipe_core.corpus.packing import PackedWriter, pack
from longrecipe_core.corpus.progress import Progress, Ticker
from longrecipe_core.corpus.randomness import generator
from longrecipe_core.corpus.shards import TokenShards, TokenWriter
from longrecipe_core.corpus.tokenizer import load_tokenizer
from longrecipe_core.errors import CorpusError
from longrecipe_core.fan_out import Engine, Here
from longrecipe_core.recipe.sections import ReplaySection

HERE = Here()


def tokenize_replay(
    section: ReplaySection,
    tokenizer_directory: Path,
    output: Path,
    *,
    train_length: int,
    seed: int,
    trust_remote_code: bool = False,
    progress: Progress | None = None,
    tokens_per_shard: int = TOKENS_PER_SHARD,
    engine: Engine = HERE,
) -> dict[str, Any]:
    """Write the section's samples, shuffled and packed, to `packed-NNNNN.arrow` in `output`.

    A sample is: what the tokenizer puts in front of a text (BOS, if it adds one), prompt, separator,
    response, EOS; or plain text in their place. Samples are laid end to end in the order of one permutation,
    drawn from `generator(seed, "replay")`, and cut into rows of `train_length` tokens, of which only the
    last may be shorter. Ids go to temporary files in `output` first, so memory stays bounded (8 bytes per
    sample, for the permutation).

    Args:
        section: sources and separator.
        tokenizer_directory: of the model that will be trained.
        output: an empty or new local directory.
        train_length: tokens per row.
        seed: of the permutation.
        trust_remote_code: run Python code that comes with a tokenizer.
        progress: gets a line of text every few seconds, and one at the end.
        tokens_per_shard: a file ends with the row that reaches this.
        engine: runs the tokenizer; the bytes are the same for each.

    Returns:
        Counts for the manifest: `samples` {read, kept, skipped {reason: n}}, `files_skipped` {reason: n},
        `tokens`, `prompt_tokens`, `rows`, and per source {read, skipped, files_skipped}; read = kept + skipped.

    Raises:
        CorpusError: a source or the tokenizer can't be read, the tokenizer has no end-of-text token, or no
            sample is left.
    """
    tokenizer = load_tokenizer(tokenizer_directory, trust_remote_code)
    eos: int | None = tokenizer.eos_token_id
    if eos is None:
        raise CorpusError(
            f"tokenizer {tokenizer_directory}: has no eos_token, which ends every sample; "
            "set eos_token in its tokenizer_config.json to the entry that ends a text"
        )
    end = np.array([eos], dtype=np.int32)
    encoder = SourceEncoder(
        section.sources, tokenizer_directory, section.separator, engine, trust_remote_code=trust_remote_code
    )
    prompt_tokens = 0
    output.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".samples-", dir=output) as directory:
        with (
            TokenWriter(Path(directory), "train") as samples,
            Ticker("replay", progress) as ticker,
            closing(encoder.documents()) as encoded,
        ):
            for sample in encoded:
                ids = np.concatenate([sample.input_ids, end])
                label = source_label(sample.source, section.sources[sample.source])
                samples.append(sample.document_id, label, ids, sample.prompt_tokens)
                prompt_tokens += sample.prompt_tokens
                ticker.add(1, len(ids))
        counts = total(encoder.counts)
        if samples.rows == 0:
            raise CorpusError(f"replay: none of {counts.read} samples has text; give sources with some")
        with PackedWriter(output, tokens_per_shard) as packed:
            for row in pack(_shuffled(TokenShards(directory), seed), train_length):
                packed.append(row)
    return {
        "samples": {
            "read": counts.read,
            "kept": samples.rows,
            "skipped": dict(sorted(counts.skipped.items())),
        },
        "files_skipped": dict(sorted(counts.skipped_files.items())),
        "tokens": packed.tokens,
        "prompt_tokens": prompt_tokens,
        "rows": packed.rows,
        "sources": {
            source_label(number, source): encoder.counts[number].as_dict()
            for number, source in enumerate(section.sources)
        },
    }


def _shuffled(samples: TokenShards, seed: int) -> Iterator[tuple[Int32Array, int]]:
    for row in generator(seed, "replay").permutation(len(samples)):
        yield samples.input_ids(int(row)), samples.prompt_tokens(int(row))
