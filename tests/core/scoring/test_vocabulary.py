"""Token classes on hand-typed examples, with tokenizers of both marks of a word's start."""

import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from longrecipe_core.corpus import load_tokenizer, train_tokenizer
from longrecipe_core.scoring.vocabulary import CLASSES, read_vocabulary

EXAMPLES = {
    "pronouns": "I you he She it we they me him us them my your his its our their mine myself who what which There",
    "auxiliaries": "am is are was were be been being have has had do does did can could Will would should may must",
    "conjunctions": "and or But nor",
    "subordinating conjunctions": "because if while although unless whether that",
    "adpositions": "of in on at By with from into about between through to",
    "names": "London Alice Microsoft Paris",
    "numbers": "one two seven hundred million",
    "words": "house run small the a not quickly x",
    "code": "my_name getValue foo() .append",
}


@pytest.mark.parametrize("mark", ["Ġ", "▁"])
def test_whole_words(mark):
    words = [(name, word) for name, line in EXAMPLES.items() for word in line.split()]
    pieces = dict.fromkeys([mark + word for _, word in words])
    core = Tokenizer(models.WordLevel({piece: number for number, piece in enumerate(pieces)}, unk_token=mark + "the"))
    if mark == "Ġ":
        core.pre_tokenizer, core.decoder = pre_tokenizers.ByteLevel(), decoders.ByteLevel()
    else:
        core.pre_tokenizer, core.decoder = pre_tokenizers.Metaspace(), decoders.Metaspace()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=core)
    found = read_vocabulary(tokenizer)
    assert [text.strip() for text in found.texts] == [word for _, word in words]
    assert found.classes == [name for name, _ in words]


def test_pieces_of_a_trained_byte_level_tokenizer(tmp_path):
    text = " we're in London, he'll say: 2019 2019 (twenty) if x == y: foo(); café\n\n\tthem; ab->c £ under_score\n"
    train_tokenizer([text] * 20, 400, tmp_path, model_max_length=64)
    tokenizer = load_tokenizer(tmp_path)
    found = read_vocabulary(tokenizer)
    assert len(found.texts) == len(found.classes) == len(tokenizer)
    assert set(found.classes) <= set(CLASSES)

    def classes(text):
        ids = tokenizer(text)["input_ids"]
        return [(found.texts[i], found.classes[i]) for i in ids]

    assert classes(" we're") == [(" we", "pronouns"), ("'re", "auxiliaries")]
    assert classes(" London,") == [(" London", "names"), (",", "punctuation")]
    assert classes(" he'll")[1] == ("'ll", "auxiliaries")
    assert classes(" ==") == [(" ==", "code")]
    assert classes("();")[0][1] == "code"
    assert classes("->")[-1][1] == "code"
    assert classes(" 2019") == [(" 2019", "numbers")]
    assert classes("\n\n\t") == [("\n\n", "white space"), ("\t", "white space")]
    assert classes(" £") == [(" £", "symbols")]
    # Without the mark of a word's start they are parts, whatever they look like.
    assert classes("we")[0][1] == "parts of words"
    assert classes("<|end|>") == [("<|end|>", "special")]
    # Bytes of a character that is split.
    assert found.classes[tokenizer.convert_tokens_to_ids("Ã")] == "parts of words"
