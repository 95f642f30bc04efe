"""The tokenize stage: documents in, the `tokens` artifact out. One pass, in order, in bounded memory."""

from array import array
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from longrecipe_core.corpus.arrow_shards import TOKENS_PER_SHARD
from longrecipe_core.corpus.encoding import Counts, encode_sources, source_label
from longrecipe_core.corpus.progress import Progress, Ticker
from longrecipe_core.corpus.shards import TokenWriter
from longrecipe_core.corpus.split import is_validation
from longrecipe_core.corpus.tokenizer import Encoder, load_tokenizer
from longrecipe_core.recipe.sections import SourceSection

__all__ = ["load_tokenizer", "tokenize"]


def tokenize(
    sources: Sequence[SourceSection],
    tokenizer_directory: Path,
    output: Path,
    *,
    validation_share: float,
    trust_remote_code: bool = False,
    progress: Progress | None = None,
    tokens_per_shard: int = TOKENS_PER_SHARD,
) -> dict[str, Any]:
    """Write every document of the sources, whole, to `train-` or `validation-NNNNN.arrow` in `output`.

    A document begins with what the tokenizer puts in front of a text (BOS, if it adds one) and gets nothing
    at its end: the trained samples are cut from its inside. A sample of prompt and response becomes prompt,
    line break, response. Documents without text are skipped and counted; copies are counted, not removed.
    Which split a document belongs to is decided by its text alone, see `split.is_validation`.

    Args:
        sources: read one after the other.
        tokenizer_directory: of the model that will be trained.
        output: an empty or new local directory.
        validation_share: share of documents kept for evaluation, 0..1.
        trust_remote_code: run Python code that comes with a tokenizer.
        progress: gets a line of text every few seconds, and one at the end.
        tokens_per_shard: a file ends with the document that reaches this.

    Returns:
        Counts for the manifest: `documents` {read, kept, skipped {reason: n}, duplicates}, `files_skipped`
        {reason: n}, and per split and per source {documents, tokens}; read = kept + skipped, in documents.

    Raises:
        CorpusError: a source or the tokenizer can't be read; one line that names the file and row.
    """
    encoder = Encoder(load_tokenizer(tokenizer_directory, trust_remote_code))
    counts = Counts.none()
    per_source = {source_label(number, source): [0, 0] for number, source in enumerate(sources)}
    seen = array("Q")  # 8 bytes per document: the only thing that grows
    train = TokenWriter(output, "train", tokens_per_shard)
    validation = TokenWriter(output, "validation", tokens_per_shard)
    with train, validation, Ticker("tokenize", progress) as ticker:
        for document in encode_sources(sources, encoder, "\n", counts, trust_remote_code):
            writer = validation if is_validation(document.document_id, validation_share) else train
            writer.append(document.document_id, document.source, document.input_ids, document.prompt_tokens)
            seen.append(int(document.document_id[:16], 16))
            per_source[document.source][0] += 1
            per_source[document.source][1] += len(document.input_ids)
            ticker.add(1, len(document.input_ids))
    duplicates = len(seen) - len(np.unique(np.frombuffer(seen, dtype=np.uint64)))
    return {
        "documents": {
            "read": counts.read,
            "kept": train.rows + validation.rows,
            "skipped": dict(sorted(counts.skipped.items())),
            "duplicates": duplicates,
        },
        "files_skipped": dict(sorted(counts.skipped_files.items())),
        "splits": {
            "train": {"documents": train.rows, "tokens": train.tokens},
            "validation": {"documents": validation.rows, "tokens": validation.tokens},
        },
        "sources": {name: {"documents": pair[0], "tokens": pair[1]} for name, pair in per_source.items()},
    }
