"""The index made the plain way, token by token in Python lists: what `index_speedup` is measured against.

It does what the method's first implementation does: split on ids, keep sentences with a digit and others with
probability 1/2 up to the train length, draw slots and right point, insert the sentences into a list of zeros as long as
the target, flatten it, write the positions as a pickle and the selected rows as JSON.
"""

import json
import pickle
import random
from pathlib import Path


def write_plain_index(
    documents: list[list[int]],
    sentence_ends: set[int],
    digits: set[int],
    output: Path,
    *,
    train_length: int,
    target_length: int,
    seed: int,
) -> None:
    """One sample per document, to `positions.pkl`, `right_points.pkl` and `rows.jsonl` in `output`."""
    output.mkdir(parents=True, exist_ok=True)
    rng = random.Random(seed)
    positions, right_points, rows = [], [], []
    for tokens in documents:
        kept = select(split(tokens[:target_length], sentence_ends), digits, train_length, rng)
        right_point = rng.randint(1, (train_length + 1) // 2)
        positions.append(place(kept, target_length, right_point, rng))
        right_points.append(right_point)
        rows.append([token for sentence in kept for token in sentence])
    with (output / "positions.pkl").open("wb") as file:
        pickle.dump(positions, file)
    with (output / "right_points.pkl").open("wb") as file:
        pickle.dump(right_points, file)
    with (output / "rows.jsonl").open("w", encoding="ascii") as file:
        for row in rows:
            file.write(json.dumps({"input_ids": row}) + "\n")


def split(tokens: list[int], sentence_ends: set[int]) -> list[list[int]]:
    """Sentences, each with the token that ends it."""
    sentences: list[list[int]] = []
    sentence: list[int] = []
    for token in tokens:
        sentence.append(token)
        if token in sentence_ends:
            sentences.append(sentence)
            sentence = []
    if sentence:
        sentences.append(sentence)
    return sentences


def select(sentences: list[list[int]], digits: set[int], budget: int, rng: random.Random) -> list[list[int]]:
    """Sentences with a digit, others with probability 1/2, from the front until there are `budget` tokens."""
    kept: list[list[int]] = []
    left = budget
    for sentence in sentences:
        if left and (any(token in digits for token in sentence) or rng.random() < 0.5):
            kept.append(sentence[:left])
            left -= len(kept[-1])
    return kept


def place(sentences: list[list[int]], target_length: int, right_point: int, rng: random.Random) -> list[int]:
    """Positions of all tokens: sentences at drawn slots, the first at 0, and the identity before the right point."""
    free = target_length - sum(len(sentence) for sentence in sentences)
    slots = [0, *sorted(rng.sample(range(1, free + len(sentences)), len(sentences) - 1))]
    layout: list[list[int]] = [[0]] * (free + len(sentences))
    for slot, sentence in zip(slots, sentences, strict=True):
        layout[slot] = [1] * len(sentence)
    taken = [mark for part in layout for mark in part]
    positions = [position for position, mark in enumerate(taken) if mark]
    return list(range(right_point)) + positions[right_point:]
