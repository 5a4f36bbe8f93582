"""Whether the network computes in bfloat16."""

import torch

from pipeline.training.train_config import TrainConfig


def use_bf16(config: TrainConfig, device: torch.device) -> bool:
    """Decide by the configuration and, on ``auto``, by what the device does natively."""
    if config.bf16 != "auto":
        return config.bf16 == "on"
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    # Emulated on other processors, it is slower than fp32.
    return torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()  # noqa: SLF001 no public name
