"""Memory options together with DDP, FSDP2 and shared sequences, on two gloo processes."""

import json
from pathlib import Path

import memory_ranks
import pytest
import torch.multiprocessing
from ports import free_port


@pytest.fixture(scope="module")
def answers(tmp_path_factory):
    path = tmp_path_factory.mktemp("ranks") / "answer"
    torch.multiprocessing.spawn(memory_ranks.rank_main, (free_port(), str(path)), nprocs=memory_ranks.WORLD)
    return [json.loads(Path(f"{path}.{rank}").read_text()) for rank in range(memory_ranks.WORLD)]


@pytest.mark.parametrize("case", memory_ranks.CASES)
def test_gradients_equal_those_of_one_process(answers, case):
    for answer in answers:
        assert isinstance(answer["gradients"][case], float), answer["gradients"][case]
        assert answer["gradients"][case] < 1e-5


@pytest.mark.parametrize("case", memory_ranks.MESSAGES)
def test_what_communicates_again_in_recomputation(answers, case):
    """`selective` saves what ring and dist-flash exchanged; the all-to-all of heads is outside of what it saves."""
    mode, option = case.split(", ")
    for answer in answers:
        forward, total = answer["messages"][case]
        _, once = answer["messages"][f"{mode}, none"]
        assert forward > 0
        again = option in (("full", "offload", "selective") if mode == "ulysses" else ("full", "offload"))
        assert total - once == (forward if again else 0)
