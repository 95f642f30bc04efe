"""The tokenize stage: documents in, the `tokens` artifact out. One pass, in order, in bounded memory."""

from array import array
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np

from longrecipe_core.corpus.arrow_shards import TOKENS_PER_SHARD
from longrecipe_core.corpus.bad_data import total
from longrecipe_core.corpus.encoding import SourceEncoder, source_label
from longrecipe_core.corpus.filters import Filter, Filters
from longrecipe_core.corpus.progress import Progress, Ticker
from longrecipe_core.corpus.shards import TokenWriter
from longrecipe_core.corpus.split import is_validation, share_of
from longrecipe_core.corpus.tokenizer import load_tokenizer
from longrecipe_core.errors import CorpusError
from longrecipe_core.fan_out import Engine, Here
from longrecipe_core.recipe.sections import SourceSection

__all__ = ["load_tokenizer", "tokenize"]

HERE = Here()
EVERYTHING = Filters()


def tokenize(
    sources: Sequence[SourceSection],
    tokenizer_directory: Path,
    output: Path,
    *,
    validation_share: float,
    filters: Filters = EVERYTHING,
    trust_remote_code: bool = False,
    progress: Progress | None = None,
    tokens_per_shard: int = TOKENS_PER_SHARD,
    engine: Engine = HERE,
) -> dict[str, Any]:
    """Write every document that passes the filters, whole, to `train-` or `validation-NNNNN.arrow` in `output`.

    A document begins with what the tokenizer puts in front of a text (BOS, if it adds one) and gets nothing
    at its end: the trained samples are cut from its inside. A sample of prompt and response becomes prompt,
    line break, response. Documents without text, or of one token, are skipped and counted. Which split a document
    belongs to is decided by its text alone and its source's share, see `split.is_validation`.

    Memory grows with the longest document, and by 8 bytes per document; more where copies are removed, see
    `deduplication.Deduplicator`.

    Args:
        sources: read one after the other.
        tokenizer_directory: of the model that will be trained.
        output: an empty or new local directory.
        validation_share: share of documents kept for evaluation, 0..1, of sources that have none of their own.
        filters: lengths, and whether copies are removed; by default copies are counted only.
        trust_remote_code: run Python code that comes with a tokenizer.
        progress: gets a line of text every few seconds, and one at the end.
        tokens_per_shard: a file ends with the document that reaches this.
        engine: runs the tokenizer; the bytes are the same for each.

    Returns:
        Counts for the manifest: `documents` {read, kept, skipped {reason: n}, duplicates}, `files_skipped`
        {reason: n}, per split {documents, tokens}, and per source these and {read, skipped, files_skipped};
        read = kept + skipped, in documents. `duplicates` are kept copies of an earlier text. The reasons are in
        `docs/corpus.md`.

    Raises:
        CorpusError: a source or the tokenizer can't be read, in one line that names the file and row; or no
            document is left.
        FanOutError: a batch's worker died several times.
    """
    encoder = SourceEncoder(
        sources,
        tokenizer_directory,
        "\n",
        engine,
        signatures=filters.deduplicate == "near",
        trust_remote_code=trust_remote_code,
    )
    labels = [source_label(number, source) for number, source in enumerate(sources)]
    shares = [share_of(source, validation_share) for source in sources]
    sides: dict[str, bool] | None = {} if len(set(shares)) > 1 else None  # with one share, copies stand on one side
    kept = [[0, 0] for _ in sources]  # documents, tokens
    seen = array("Q")
    filter_ = Filter(filters)
    train = TokenWriter(output, "train", tokens_per_shard)
    validation = TokenWriter(output, "validation", tokens_per_shard)
    with train, validation, Ticker("tokenize", progress) as ticker, closing(encoder.documents()) as documents:
        for document in documents:
            held_out = is_validation(document.document_id, shares[document.source])
            reason = filter_.reason(document)
            if reason is None and sides is not None and sides.setdefault(document.document_id, held_out) != held_out:
                reason = "copy_of_other_split"
            if reason is not None:
                encoder.counts[document.source].skipped[reason] += 1
                continue
            writer = validation if held_out else train
            label = labels[document.source]
            writer.append(document.document_id, label, document.input_ids, document.prompt_tokens)
            seen.append(int(document.document_id[:16], 16))
            kept[document.source][0] += 1
            kept[document.source][1] += len(document.input_ids)
            ticker.add(1, len(document.input_ids))
        counts = total(encoder.counts)
        if progress is not None and (counts.skipped or counts.skipped_files):
            progress(f"tokenize: skipped documents {_list(counts.skipped)}; files {_list(counts.skipped_files)}")
        if train.rows + validation.rows == 0:
            raise CorpusError(
                f"tokenize: none of {counts.read:,} documents is left; skipped documents {_list(counts.skipped)}; "
                f"files {_list(counts.skipped_files)}; give sources with text, or change what leaves it out"
            )
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
        "sources": {
            label: {"documents": pair[0], "tokens": pair[1], **one.as_dict()}
            for label, pair, one in zip(labels, kept, encoder.counts, strict=True)
        },
    }


def _list(skipped: dict[str, int]) -> str:
    return ", ".join(f"{reason} {count:,}" for reason, count in sorted(skipped.items())) or "none"
