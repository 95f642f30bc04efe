"""From a recipe's `positions` to the options of one strategy."""

from typing import Any

from longrecipe_core.recipe import PositionsSection


def strategy_options(section: PositionsSection, strategy: str) -> dict[str, Any]:
    """What `make_positions` is given for `strategy`, which need not be the section's own."""
    options: dict[str, dict[str, Any]] = {
        "pose": {"chunks": section.chunks},
        "longrecipe-fixed": {"right_point": section.right_point},
        "cream": {
            "sigma": section.cream_sigma,
            "head": section.cream_head,
            "relativity": section.cream_relativity,
        },
    }
    # What isn't given has the strategy's own default.
    return {name: value for name, value in options.get(strategy, {}).items() if value is not None}
