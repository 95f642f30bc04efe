"""The same in EleutherAI's lm-eval, by a program that has nothing of this package.

    python lm_eval_reader.py MODEL TEXT LENGTH FIRST

The tokens up to position FIRST are the context, those after it the continuation whose log likelihood is asked for.
"""

import json
import sys

from lm_eval.models.huggingface import HFLM


def main() -> None:
    """Print one JSON object."""
    model_path, text_path, length, first = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
    reader = HFLM(pretrained=model_path, dtype="float32", device="cpu", batch_size=1)
    with open(text_path, encoding="utf-8") as file:
        tokens = reader.tok_encode(file.read())[:length]
    context, continuation = tokens[: first + 1], tokens[first + 1 :]
    # lm-eval asks for token ids beside the two texts, and scores these.
    ((log_likelihood, _),) = reader._loglikelihood_tokens([(("", ""), context, continuation)], disable_tqdm=True)
    print(json.dumps({"nll": -log_likelihood / len(continuation), "count": len(continuation)}))


if __name__ == "__main__":
    main()
