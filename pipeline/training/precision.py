"""In which number formats the network computes: as the settings say, or as the device does natively."""

from typing import NamedTuple

import torch

from pipeline.training.train_config import TrainConfig


class Precision(NamedTuple):
    """The format of the network's weights, and that of its products where it is another (autocast)."""

    weights: torch.dtype = torch.float32
    autocast: torch.dtype | None = None


def precision_of(config: TrainConfig, device: torch.device) -> Precision:
    """Decide; ``auto`` is bfloat16 where the device has it, else float16 on CUDA, else float32."""
    precision = config.precision
    if precision == "auto" and config.bf16 != "auto":
        precision = "bf16" if config.bf16 == "on" else "fp32"
    if precision == "fp64":
        return Precision(weights=torch.float64)
    if precision == "auto":
        return Precision(autocast=_native(device))
    return Precision(autocast={"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": None}[precision])


def _native(device: torch.device) -> torch.dtype | None:
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float16
    # Emulated on other processors, it is slower than fp32.
    has_bf16 = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()  # noqa: SLF001 no public name
    return torch.bfloat16 if has_bf16 else None
