"""Python source as instruction data: signatures are prompts, docstrings responses. No code is run."""

import ast
import inspect
import warnings
from collections.abc import Iterator

Definition = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef


def signatures_and_docstrings(content: bytes) -> Iterator[tuple[int, str, str]]:
    """(line, signature, cleaned docstring) of each function and class that has a docstring, in source order.

    A signature reads `def name(arguments) -> result:` or `class Name(bases):`, as `ast.unparse` writes it.
    Docstrings that have no UTF-8 form (lone surrogates) are left out.

    Raises:
        SyntaxError, ValueError, RecursionError: the bytes are no Python that this interpreter can parse.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # old escapes in other people's strings are not our user's concern
        tree = ast.parse(content)
    yield from _below(tree)


def _below(node: ast.AST) -> Iterator[tuple[int, str, str]]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, Definition):
            docstring = ast.get_docstring(child, clean=False)
            if docstring is not None and _has_utf8(docstring):
                yield child.lineno, _signature(child), inspect.cleandoc(docstring)
        yield from _below(child)


def _signature(node: Definition) -> str:
    if isinstance(node, ast.ClassDef):
        bases = [ast.unparse(base) for base in (*node.bases, *node.keywords)]
        return f"class {node.name}({', '.join(bases)}):" if bases else f"class {node.name}:"
    word = "async def" if isinstance(node, ast.AsyncFunctionDef) else "def"
    result = f" -> {ast.unparse(node.returns)}" if node.returns is not None else ""
    return f"{word} {node.name}({ast.unparse(node.args)}){result}:"


def _has_utf8(text: str) -> bool:
    return not any("\ud800" <= character <= "\udfff" for character in text)
