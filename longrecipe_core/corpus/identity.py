"""What a source's content is, as one digest: the outside input of a stage's fingerprint."""

import hashlib
import json
import os

from longrecipe_core.artifacts.digest import DigestMemory, digest_url, remembered_digest
from longrecipe_core.corpus.files import list_files, one_line
from longrecipe_core.corpus.hub import dataset_commit, model_commit
from longrecipe_core.corpus.tokenizer import tokenizer_place
from longrecipe_core.errors import CorpusError, InputMissingError
from longrecipe_core.recipe.sections import SourceSection

# A tokenizer's directory is often a model's: its weights say nothing about the text.
_WEIGHTS = (".safetensors", ".bin", ".gguf", ".pt", ".pth", ".h5", ".msgpack", ".onnx", ".ot")


def source_digest(source: SourceSection, memory: DigestMemory | None = None) -> str:
    """The identity of what a source holds, 64 hexadecimal digits.

    Files enter by their content in reading order (and by the compression that their names promise), so moving
    them changes nothing; hub datasets by their commit; with ids of another tokenizer, that tokenizer too.
    How the source is read (columns, limit, …) is not in it: the caller adds those options.

    Args:
        source: the source.
        memory: spares reading a file again whose size and times are those of the last digest.

    Raises:
        CorpusError: nothing is there, it can't be read, or the hub doesn't answer.
    """
    content: object
    try:
        if source.format == "hub":
            content = ["hub", dataset_commit(source.path, source.revision)]
        elif source.format == "disk":
            content = ["disk", digest_url(source.path, memory=memory)]
        else:
            files = list_files(source.path, source.format)
            content = [
                "files",
                [(file.compression, remembered_digest(file.fs, file.path, memory, file.listed)[0]) for file in files],
            ]
        tokenizer = _tokenizer_digest(source.tokenizer, memory) if source.tokenizer is not None else None
    except (OSError, InputMissingError) as error:
        raise CorpusError(f"source {source.path}: no digest: {one_line(error)}") from error
    return hashlib.sha256(json.dumps([content, tokenizer]).encode("ascii")).hexdigest()


def resolve_source(source: SourceSection) -> SourceSection:
    """The source with a hub dataset's branch or tag replaced by its commit: what is digested will be read.

    Raises:
        CorpusError: the hub doesn't answer or has no such revision.
    """
    if source.format != "hub":
        return source
    return source.model_copy(update={"revision": dataset_commit(source.path, source.revision)})


def _tokenizer_digest(tokenizer: str, memory: DigestMemory | None) -> object:
    place = tokenizer_place(tokenizer)
    if not os.path.isdir(place):
        return ["hub", model_commit(place)]
    files = [file for file in list_files(place, "any") if not file.path.endswith(_WEIGHTS)]
    return [
        (os.path.basename(file.path), remembered_digest(file.fs, file.path, memory, file.listed)[0]) for file in files
    ]
