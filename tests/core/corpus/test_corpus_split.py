import hashlib

import numpy as np
import pytest

from longrecipe_core.corpus import document_id, generator, is_validation

IDS = [document_id(f"document {number}") for number in range(20_000)]


def test_the_id_is_the_digest_of_the_text() -> None:
    assert document_id("Grüße") == hashlib.sha256("Grüße".encode()).hexdigest()


def test_the_share_is_met_and_grows_by_adding_only() -> None:
    chosen: set[str] = set()
    for share in (0, 0.01, 0.05, 0.5, 1):
        now = {one for one in IDS if is_validation(one, share)}
        assert chosen <= now
        assert abs(len(now) / len(IDS) - share) < 4 * (share * (1 - share) / len(IDS)) ** 0.5 + 1e-12
        chosen = now
    assert len(chosen) == len(IDS)


def test_the_rule_is_the_one_that_is_written_down() -> None:
    assert is_validation("0" * 64, 1e-9)
    assert is_validation("7f" + "f" * 62, 0.5)
    assert not is_validation("80" + "0" * 62, 0.5)
    assert not is_validation("0" * 64, 0)
    assert is_validation("f" * 64, 1)
    with pytest.raises(ValueError, match=r"1\.5"):
        is_validation("0" * 64, 1.5)


def test_random_numbers_are_the_documented_ones() -> None:
    words = np.frombuffer(hashlib.sha256(b"replay").digest()[:16], dtype=">u4").tolist()
    sequence = np.random.SeedSequence([2027, 0, *words, 5, 1, 3])
    expected = np.random.Generator(np.random.Philox(sequence)).integers(0, 2**62, 10)
    assert np.array_equal(generator(2027, "replay", 2**32 + 5).integers(0, 2**62, 10), expected)


def test_different_words_give_different_numbers() -> None:
    keys = [
        (0,),
        (1,),
        (1, 0),
        (1, 0, 0),
        (0, 1),
        (2**32,),
        (1, "0"),
        (1, ""),
        ("1",),
        (0, "a", "b"),
        (0, "ab"),
    ]
    drawn = {int(generator(3, *key).integers(0, 2**62)) for key in keys}
    assert len(drawn) == len(keys)
    assert int(generator(np.int64(3), np.int32(1)).integers(9**9)) == int(generator(3, 1).integers(9**9))


def test_impossible_words_are_refused() -> None:
    for bad in (-1, 2**64):
        with pytest.raises(ValueError, match=str(bad)):
            generator(bad)
    with pytest.raises(TypeError):
        generator(0, 1.5)  # type: ignore[arg-type]
