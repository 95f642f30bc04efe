"""The shipped accelerate configurations, read by accelerate itself."""

from pathlib import Path

import pytest
from accelerate.commands.config.config_args import load_config_from_file
from accelerate.utils import DistributedType

from longrecipe_core.launching.configuration import accelerate_config
from longrecipe_core.launching.shipped import SHIPPED, shipped_text

DIRECTORY = Path(__file__).parents[3] / "deployments" / "accelerate"


def test_the_shipped_files_are_what_the_function_makes():
    assert {path.name for path in DIRECTORY.iterdir()} == set(SHIPPED)
    for name in SHIPPED:
        assert (DIRECTORY / name).read_text() == shipped_text(name), f"{name}: make it anew, see shipped.py"


@pytest.mark.parametrize(
    ("name", "processes", "machines", "kind", "cpu"),
    [
        ("1-gpu.yaml", 1, 1, DistributedType.NO, False),
        ("8-gpus.yaml", 8, 1, DistributedType.MULTI_GPU, False),
        ("2x8-gpus.yaml", 16, 2, DistributedType.MULTI_GPU, False),
        ("cpu.yaml", 1, 1, DistributedType.NO, True),
        ("cpu-2.yaml", 2, 1, DistributedType.MULTI_GPU, False),  # starts two gloo ranks; MULTI_CPU and use_cpu one
    ],
)
def test_accelerate_reads_what_was_meant(name, processes, machines, kind, cpu):
    config = load_config_from_file(str(DIRECTORY / name))
    assert (config.num_processes, config.num_machines, config.distributed_type) == (processes, machines, kind)
    assert config.use_cpu is cpu
    assert config.machine_rank == 0
    assert (config.main_process_port is not None) == (processes > 1)


def test_each_machine_is_told_its_number_and_where_the_main_one_is():
    config = accelerate_config(4, 2, cuda=False, machine_rank=1, host="10.0.0.7", port=1234)
    assert (config["machine_rank"], config["main_process_ip"], config["main_process_port"]) == (1, "10.0.0.7", 1234)
    assert config["same_network"] is True
