"""What `accelerate launch` is told."""

MAIN_PORT = 29500


def accelerate_config(
    processes: int, machines: int, cuda: bool, *, machine_rank: int = 0, host: str = "127.0.0.1", port: int = MAIN_PORT
) -> dict[str, object]:
    """What `accelerate launch --config_file` reads.

    FSDP2, sequence parallelism and precision are the job's own, so the launcher is told of processes only.

    Args:
        processes: Ranks over all machines, one per GPU with `cuda`.
        machines: Machines that share them evenly.
        cuda: GPUs and NCCL; else CPU and gloo, for which `ACCELERATE_USE_CPU=true` must be in the environment.
        machine_rank: Which machine this is; 0 is the main one.
        host: The main machine, as all machines reach it.
        port: A free port there.
    """
    config: dict[str, object] = {
        "compute_environment": "LOCAL_MACHINE",
        # MULTI_CPU starts one process whatever is asked for; MULTI_GPU with ACCELERATE_USE_CPU gloo ranks (traps, 11).
        "distributed_type": "NO" if processes == 1 else "MULTI_GPU",
        "num_machines": machines,
        "num_processes": processes,
        "machine_rank": machine_rank,
        "mixed_precision": "no",  # the job sets its own
        "use_cpu": not cuda and processes == 1,
    }
    if processes > 1:
        config |= {
            "main_process_ip": host,
            "main_process_port": port,
            "rdzv_backend": "static",
            "same_network": machines > 1,
        }
    return config
