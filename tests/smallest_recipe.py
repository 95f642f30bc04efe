"""A recipe with no more than a recipe must have: a pretrained model by its name, and a file of each kind."""

from typing import Any

RECIPE: dict[str, Any] = {
    "name": "x",
    "model": {"path": "some/model"},
    "context": {"target_length": 128, "train_length": 40},
    "corpus": {"sources": [{"path": "documents"}]},
    "extend": {"learning_rate": 1e-3},
    "replay": {"sources": [{"path": "replay"}]},
    "anneal": {"learning_rate": 1e-4},
}
