"""Truncated contexts: who sees what, by a model whose hidden state says it."""

import torch
from hypothesis import given
from hypothesis import strategies as st

from longrecipe_core.scoring import differences
from longrecipe_core.scoring.differences import short_hidden


class Telling:
    """A hidden state is the first token that its place sees, and the last."""

    def hidden(self, input_ids):
        return torch.stack([input_ids[:, :1].expand_as(input_ids), input_ids], dim=-1)


@given(st.integers(2, 40), st.integers(2, 120), st.integers(1, 200))
def test_every_context_is_as_long_as_it_is_said_to_be(short, more, tokens_per_forward):
    length = short + more
    before = differences.TOKENS_PER_FORWARD
    differences.TOKENS_PER_FORWARD = tokens_per_forward
    try:
        found = short_hidden(Telling(), torch.arange(100, 100 + length), short) - 100
    finally:
        differences.TOKENS_PER_FORWARD = before
    assert found.shape == (length - 1 - short, 2)
    half = short // 2
    for (first, last), place in zip(found.tolist(), range(short + 1, length), strict=True):
        assert last == place - 1  # predicts the token at `place`
        assert first % half == 0
        assert short - half < place - first <= short
