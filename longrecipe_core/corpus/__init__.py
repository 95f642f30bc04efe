"""From text to tokens: sources, tokenization, packing, shards, and the tokenizer of a base of our own."""

from longrecipe_core.corpus.bad_data import Counts
from longrecipe_core.corpus.filters import Filters
from longrecipe_core.corpus.identity import resolve_source, source_digest
from longrecipe_core.corpus.packing import PackedRow, PackedShards, PackedWriter, pack
from longrecipe_core.corpus.randomness import generator
from longrecipe_core.corpus.replay import tokenize_replay
from longrecipe_core.corpus.shards import TokenShards, TokenWriter
from longrecipe_core.corpus.sources import Document, iterate_documents
from longrecipe_core.corpus.split import document_id, is_validation, share_of
from longrecipe_core.corpus.tokenization import tokenize
from longrecipe_core.corpus.tokenizer import load_tokenizer
from longrecipe_core.corpus.tokenizer_training import train_tokenizer

__all__ = [
    "Counts",
    "Document",
    "Filters",
    "PackedRow",
    "PackedShards",
    "PackedWriter",
    "TokenShards",
    "TokenWriter",
    "document_id",
    "generator",
    "is_validation",
    "iterate_documents",
    "load_tokenizer",
    "pack",
    "resolve_source",
    "share_of",
    "source_digest",
    "tokenize",
    "tokenize_replay",
    "train_tokenizer",
]
