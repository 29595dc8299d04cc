"""What Ray is told by its environment, on nodes and in the driver; without importing it."""

from typing import Final

ENVIRONMENT: Final = {
    # calls carry their bytes themselves, instead of by way of the object store
    "RAY_max_direct_call_object_size": str(512 << 20),
    "RAY_task_rpc_inlined_bytes_limit": str(512 << 20),
    "RAY_max_grpc_message_size": str(2**31 - 1),
    # a node that is gone is noticed within about a second and a half
    "RAY_health_check_initial_delay_ms": "500",
    "RAY_health_check_period_ms": "500",
    "RAY_health_check_timeout_ms": "500",
    "RAY_health_check_failure_threshold": "3",
    "RAY_enable_metrics_collection": "0",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_DISABLE_IMPORT_WARNING": "1",
}  # fmt: skip
"""Set unless the user has set something else."""
LOOPBACK: Final = "127.0.0.1"
