"""Which sentences of a document are trained on (paper, section 4.1)."""

from longrecipe_core.selection.select import Selected, select_tokens
from longrecipe_core.selection.sentences import TokenClasses, sentence_starts, token_classes

__all__ = ["Selected", "TokenClasses", "select_tokens", "sentence_starts", "token_classes"]
