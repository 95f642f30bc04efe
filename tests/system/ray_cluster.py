"""A Ray cluster of two nodes on the loopback interface, each with one CPU and processes of its own."""

import contextlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from unittest.mock import patch


@contextlib.contextmanager
def two_nodes(**environment: str) -> Iterator[str]:
    """Start the nodes; gives the address to connect to, and ends every process in the end.

    `environment` is what workers find in theirs.
    """
    # Short: sockets lie in it, whose paths may have 107 bytes.
    with tempfile.TemporaryDirectory(prefix="r", ignore_cleanup_errors=True) as directory:
        settings = {
            **environment,
            "RAY_TMPDIR": directory,
            "RAY_USAGE_STATS_ENABLED": "0",
            "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",  # in spite of its name: the loopback interface only
            # Workers find the tests' shard functions by name, as everything else.
            "PYTHONPATH": os.pathsep.join(filter(None, [str(Path(__file__).parent), os.environ.get("PYTHONPATH")])),
        }
        node = {
            "num_cpus": 1,
            "node_ip_address": "127.0.0.1",
            "include_dashboard": False,
            "object_store_memory": 80 * 2**20,
        }
        with patch.dict(os.environ, settings), patch("ray._private.ray_constants.ENABLE_RAY_CLUSTER", False):
            import ray
            from ray.cluster_utils import Cluster

            cluster = Cluster(initialize_head=True, head_node_args=node)
            try:
                cluster.add_node(**node)
                yield cluster.address
            finally:
                ray.shutdown()
                cluster.shutdown()
