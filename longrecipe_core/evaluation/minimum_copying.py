"""Whether a base model copies as well as its recipe asks. Imports no torch: a base from the store is asked, too."""

from collections.abc import Mapping
from typing import Any

from longrecipe_core.errors import BaseModelError
from longrecipe_core.recipe import MinimumCopyingSection


def check_base_copying(found: Mapping[str, Any], section: MinimumCopyingSection, uri: str) -> None:
    """Raise BaseModelError where the share at any one distance is below `section.accuracy`; `uri` is the model's."""
    if any(found[str(distance)] < section.accuracy for distance in section.distances):
        values = ", ".join(f"{found[str(distance)]:.3f} at distance {distance}" for distance in section.distances)
        raise BaseModelError(
            f"base.minimum_copying.accuracy: {section.accuracy:g} is asked for at each distance, the trained base "
            f"copies {values}; it stays in the store ({uri}): lower the accuracy to go on with it, or train another "
            f"with a higher base.training.steps or base.copies.share"
        )
