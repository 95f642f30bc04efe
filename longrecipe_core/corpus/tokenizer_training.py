"""A small tokenizer of our own, for the base model that a recipe trains on the spot."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from longrecipe_core.errors import CorpusError

BOS, EOS, PAD = "<|begin|>", "<|end|>", "<|pad|>"  # spelled so that prose and source code don't hold them


def plain_ids(tokenizer: Any) -> tuple[int, int]:
    """First id that is no special token, and the number of ids, of a tokenizer made by `train_tokenizer`."""
    return max(tokenizer.all_special_ids) + 1, len(tokenizer)


def train_tokenizer(texts: Iterable[str], vocabulary_size: int, directory: Path, *, model_max_length: int) -> None:
    """Train a byte-level BPE tokenizer and save it as a directory that AutoTokenizer loads without our code.

    The same texts give the same bytes. It covers any text (all 256 bytes are entries), adds no special token
    of its own, and knows `<|begin|>` as BOS, `<|end|>` as EOS and `<|pad|>` as padding.

    Args:
        texts: read once.
        vocabulary_size: entries, special ones included; fewer where the texts hold too few pairs to merge.
        directory: is made if need be.
        model_max_length: tokens; the context window written into the tokenizer's config.

    Raises:
        CorpusError: the vocabulary can't hold the 256 bytes and the 3 special tokens.
    """
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    special = [BOS, EOS, PAD]
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    least = len(alphabet) + len(special)
    if vocabulary_size < least:
        raise CorpusError(
            f"a vocabulary of {vocabulary_size} is too small for a byte-level tokenizer: at least {least}"
        )
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary_size, special_tokens=special, initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(texts, trainer)
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=BOS,
        eos_token=EOS,
        pad_token=PAD,
        model_max_length=model_max_length,
        clean_up_tokenization_spaces=False,
    )
    directory.mkdir(parents=True, exist_ok=True)
    fast.save_pretrained(str(directory))
    # transformers 5 writes a class name that older readers don't know; this one both load.
    path = directory / "tokenizer_config.json"
    config = json.loads(path.read_text(encoding="utf-8"))
    config["tokenizer_class"] = "PreTrainedTokenizerFast"
    path.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8")
