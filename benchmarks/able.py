"""What this processor computes as it is meant: bfloat16 is else refused, done in fp32 or imitated, and tfbatch refuses
8 bits on OpenVINO where sums of their products would overflow."""

from tfbatch.host.machine import is_overflowing, processor_flags
from tfbatch.runtimes.openvino_session import has_bf16


def is_able(device: str, precision: str) -> bool:
    if precision == "bf16":
        return has_bf16()
    return (device, precision) != ("openvino", "int8") or not is_overflowing(processor_flags())
