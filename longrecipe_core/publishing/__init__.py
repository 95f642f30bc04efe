"""A merged model with its card, copied to where others take it from: any fsspec URL, or the Hugging Face hub."""

from longrecipe_core.publishing.files import PublishedFile, model_files
from longrecipe_core.publishing.publish import Published, check_target, publish_files

__all__ = ["Published", "PublishedFile", "check_target", "model_files", "publish_files"]
