"""Position codes of patch grids.

Shape legend: N tokens, D features.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


def sincos_grid(dim: int, grid: tuple[int, int]) -> Tensor:
    """Fixed 2-D sine and cosine codes of a patch grid, as masked autoencoders use them.

    The first half of the features codes the column, the second half the row; each half holds sines,
    then cosines, of geometrically falling frequencies from 1 to 1/10000.

    Args:
        dim: number of features, a multiple of 4.
        grid: rows and columns of patches.

    Returns:
        float32 [N, D], N = rows * columns, columns running fastest; values in [-1, 1].

    Raises:
        ValueError: ``dim`` is not a multiple of 4.
    """
    if dim % 4:
        raise ValueError(f"2-D position codes need a multiple of 4 features, got {dim}")
    rows, columns = grid
    row_N = torch.arange(rows, dtype=torch.float64).repeat_interleave(columns)
    column_N = torch.arange(columns, dtype=torch.float64).repeat(rows)
    return torch.cat([_sincos(column_N, dim // 2), _sincos(row_N, dim // 2)], dim=1).float()


def _sincos(position_N: Tensor, dim: int) -> Tensor:
    power_D = torch.arange(dim // 2, dtype=torch.float64) / (dim // 2)
    angle_ND = position_N[:, None] * 10000.0**-power_D
    return torch.cat([angle_ND.sin(), angle_ND.cos()], dim=1)


def resize_grid(codes_ND: Tensor, old: tuple[int, int], new: tuple[int, int]) -> Tensor:
    """Stretches position codes from one patch grid to another.

    Bicubic, ``align_corners=False``, no anti-aliasing: the published rule for both encoders of
    MMA-DFER (for audio it squeezes the code of 10 s onto 5 s instead of cutting it).

    Args:
        codes_ND: [N, D], N = old rows * old columns.
        old: rows and columns of ``codes_ND``.
        new: rows and columns wanted.

    Returns:
        [new rows * new columns, D]; the same tensor when the grids are equal.

    Raises:
        ValueError: ``codes_ND`` doesn't have old rows * old columns rows.
    """
    if codes_ND.shape[0] != old[0] * old[1]:
        raise ValueError(
            f"{codes_ND.shape[0]} position codes are no grid of {old[0]} x {old[1]}; pass those of "
            "the patches only, without class token or prompts"
        )
    if old == new:
        return codes_ND
    picture = codes_ND.reshape(1, *old, -1).permute(0, 3, 1, 2)
    resized = F.interpolate(picture, size=new, mode="bicubic", align_corners=False)
    return resized.permute(0, 2, 3, 1).reshape(new[0] * new[1], -1)
