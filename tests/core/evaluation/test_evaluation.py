"""Measurements against plain sums over whole logits."""

import numpy as np
import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from longrecipe_core.corpus import TokenShards, TokenWriter, load_tokenizer, train_tokenizer
from longrecipe_core.errors import EvaluationError
from longrecipe_core.evaluation.nll import bucket_rows, choose_documents, token_nll
from longrecipe_core.evaluation.passkey import passkey_accuracy, passkey_prompt
from longrecipe_core.evaluation.table import summary, text_table
from longrecipe_core.recipe import EvaluationSection

LENGTHS = [50, 20, 64, 40, 33, 80]


@pytest.fixture
def tokens(tmp_path):
    rng = np.random.default_rng(0)
    with TokenWriter(tmp_path / "tokens", "validation") as writer:
        for number, length in enumerate(LENGTHS):
            writer.append(f"{number:064x}", "0-text", rng.integers(1, 90, length).astype(np.int32))
    return TokenShards(tmp_path / "tokens", "validation")


@pytest.fixture
def model():
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=90, hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_attention_heads=2,
        max_position_embeddings=64,
    )  # fmt: skip
    return LlamaForCausalLM(config).eval()


def test_only_documents_that_are_long_enough(tokens):
    documents, lengths = choose_documents(tokens, EvaluationSection(documents=9), 40, seed=1)
    assert documents.shape == (4, 40)
    assert lengths.tolist() == [40] * 4
    rows = [0, 2, 3, 5]
    assert documents.tolist() == [tokens.input_ids(row)[:40].tolist() for row in rows]
    fewer, _ = choose_documents(tokens, EvaluationSection(documents=2), 40, seed=1)
    assert len(fewer) == 2
    shorter, lengths = choose_documents(tokens, EvaluationSection(minimum_length=30), 64, seed=1)
    assert lengths.tolist() == [50, 64, 40, 33, 64]
    assert shorter[3, 33:].tolist() == [0] * 31
    with pytest.raises(EvaluationError, match=r"none of 6 validation documents has 99 tokens \(the longest has 80\)"):
        choose_documents(tokens, EvaluationSection(), 99, seed=1)


def test_token_nll_equals_plain_cross_entropy_and_ends_with_the_document(tokens, model):
    documents, lengths = choose_documents(tokens, EvaluationSection(minimum_length=30), 64, seed=1)
    found = token_nll(model, documents, lengths, bf16=False, chunk=7)
    assert found.shape == (5, 63)
    for row, length in enumerate(lengths):
        ids = torch.from_numpy(documents[row : row + 1, :length])
        with torch.no_grad():
            expected = -model.double()(input_ids=ids).logits[0, :-1].log_softmax(-1)
        model.float()
        picked = expected.gather(1, ids[0, 1:, None])[:, 0].numpy()
        assert np.abs(found[row, : length - 1] - picked).max() < 1e-5
        assert np.isnan(found[row, length - 1 :]).all()


def test_buckets_hold_the_positions_that_they_name():
    nll = np.full((2, 7), np.nan)
    nll[0] = [1, 2, 3, 4, 5, 6, 7]  # positions 1..7
    nll[1, :3] = [3, 4, 5]
    first, second = bucket_rows(nll, 2, 8)
    assert (first["start"], first["end"], first["count"]) == (0, 4, 6)
    assert first["value"] == pytest.approx((1 + 2 + 3 + 3 + 4 + 5) / 6)
    assert first["standard_error"] == pytest.approx(np.std([2, 4], ddof=1) / 2**0.5)
    assert (second["start"], second["end"], second["count"], second["value"]) == (4, 8, 4, 5.5)
    assert [row["end"] for row in bucket_rows(nll[1:, :], 2, 8)] == [4]


def test_summary_and_table():
    rows = [
        {"model": "m", "measure": "nll", "start": s, "end": s + 2, "value": v, "count": c}
        for s, v, c in [(0, 1.0, 1), (2, 2.0, 3), (4, 5.0, 2), (6, 6.0, 2)]
    ]
    assert summary(rows, window=4, target_length=8) == {"m": {"inside_window": 1.75, "last_quarter": 6.0}}
    passkey = {"model": "m", "measure": "passkey", "start": 50, "end": 50, "value": 0.5, "count": 4}
    assert text_table([*rows, passkey]).splitlines() == [
        "mean NLL (nats per token) at positions",
        "      0-2     2-4     4-6     6-8",
        "m   1.000   2.000   5.000   6.000",
        "passkey accuracy at distance",
        "       50",
        "m   0.500",
    ]


def test_passkey(tmp_path):
    """A model that always says what follows in the prompt's own key is right; one that says a constant is wrong."""
    train_tokenizer(["What is the pass key? 12345 Here we go."] * 3, 300, tmp_path, model_max_length=512)
    tokenizer = load_tokenizer(tmp_path)
    prompt, answer = passkey_prompt(tokenizer, 70, "48151")
    text = tokenizer.decode(prompt)
    assert text.count("48151") == 2
    assert text.endswith("What is the pass key? The pass key is")
    assert tokenizer.decode(answer).strip() == "48151"
    shorter, _ = passkey_prompt(tokenizer, 60, "48151")
    assert len(prompt) - len(shorter) == 10

    class Fixed(torch.nn.Module):
        """Logits that favour the true next token, or the token before it."""

        def __init__(self, offset):
            super().__init__()
            self.embed = torch.nn.Embedding(len(tokenizer), len(tokenizer))
            self.embed.weight.data = torch.eye(len(tokenizer))
            self.offset = offset

        def base_model(self, input_ids, use_cache):
            from types import SimpleNamespace

            return SimpleNamespace(last_hidden_state=self.embed(input_ids.roll(self.offset, dims=1)))

        def get_output_embeddings(self):
            return torch.nn.Identity()

    options = {"target_length": 512, "seed": 1, "bf16": False}
    assert passkey_accuracy(Fixed(-1), tokenizer, 50, 4, **options) == 1.0
    assert passkey_accuracy(Fixed(0), tokenizer, 50, 4, **options) == 0.0
    with pytest.raises(EvaluationError, match="above the target length 64"):
        passkey_accuracy(Fixed(-1), tokenizer, 50, 1, **(options | {"target_length": 64}))
