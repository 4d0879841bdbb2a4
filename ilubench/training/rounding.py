"""Rounding float32 numbers to fewer bits, at random, so that the mean is the number.

What is rounded to the nearest number does not move as long as each step is smaller than half the
distance to the next one. Rounded up with the probability of its place between two numbers, it moves
at the right pace in the mean (Gupta et al. 2015, arXiv 1502.02551).
"""

import torch

__all__ = ["stochastic_bfloat16", "to_float8", "to_float8_root"]

_EXPONENT = 23
"""Bits below a float32's exponent."""

_BIAS = 127
_LARGEST = 8
"""Exponent of the largest e4m3 number, 448 = 1.75 * 2^8."""

_SMALLEST = -6
"""Exponent of the smallest normal e4m3 number; below it the distance is 2^-9 throughout."""

_MANTISSA = 3


def stochastic_bfloat16(values: torch.Tensor, noise: torch.Generator) -> torch.Tensor:
    """Return the values in bfloat16, each one of its two neighbours, with its value as the mean.

    bfloat16 is the upper half of float32: random lower halves are added, then cut off.

    Args:
        values: float32, finite.
        noise: on the values' device.
    """
    shape, device = values.shape, values.device
    bits = torch.randint(1 << 16, shape, generator=noise, device=device, dtype=torch.int32)
    bits += values.view(torch.int32)
    bits &= -(1 << 16)
    return bits.view(torch.float32).to(torch.bfloat16)


def _power(exponent: torch.Tensor) -> torch.Tensor:
    """Return 2^exponent, exactly: float32; the exponents are int32 from -126 to 127."""
    return ((exponent + _BIAS) << _EXPONENT).view(torch.float32)


def _exponent(values: torch.Tensor) -> torch.Tensor:
    """Return floor(log2 |values|), -127 for what is smaller than 2^-126: int32."""
    return ((values.view(torch.int32) >> _EXPONENT) & 0xFF) - _BIAS


def _scales(blocks: torch.Tensor) -> torch.Tensor:
    """Return the power of two that brings each block [B, n] just below 448: float32 [B, 1].

    A power of two, so that numbers which were stored before stay on the grid when a block's scale
    changes: their rounding would add up otherwise.
    """
    largest = blocks.abs().amax(dim=1, keepdim=True)
    above = (largest.view(torch.int32) & 0x7FFFFF) > 0x600000  # a mantissa over 1.75
    exponent = _exponent(largest) - _LARGEST + above.int()
    return _power(exponent.clamp(-126, 127))


def _grid(scaled: torch.Tensor) -> torch.Tensor:
    """Return the distance of neighbouring e4m3 numbers at each value."""
    return _power(_exponent(scaled).clamp_min(_SMALLEST) - _MANTISSA)


def to_float8(blocks: torch.Tensor, noise: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
    """Return blocks as e4m3 codes and scales, values their means: float8 [B, n], float32 [B, 1].

    Args:
        blocks: float32 [B, n], finite.
        noise: on the blocks' device.
    """
    scales = _scales(blocks)
    scaled = blocks / scales
    grid = _grid(scaled)
    place = scaled / grid
    below = place.floor()
    up = torch.rand(place.shape, generator=noise, device=place.device) < place - below
    return ((below + up) * grid).to(torch.float8_e4m3fn), scales


def to_float8_root(
    blocks: torch.Tensor, noise: torch.Generator
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the roots of blocks as e4m3 codes and scales, their squares right in the mean.

    A value above 0 becomes the smallest code at least, never 0: Adam divides by it.

    Args:
        blocks: float32 [B, n], finite, at least 0.
        noise: on the blocks' device.

    Returns:
        float8 [B, n] and float32 [B, 1].
    """
    roots = blocks.sqrt()
    scales = _scales(roots)
    scaled = roots / scales
    grid = _grid(scaled)
    place = scaled / grid
    below = place.floor()
    # place^2 is the mean of below^2 and (below + 1)^2
    chance = (place.square() - below.square()) / (2.0 * below + 1.0)
    up = torch.rand(place.shape, generator=noise, device=place.device) < chance
    up |= (below == 0) & (roots > 0)
    return ((below + up) * grid).to(torch.float8_e4m3fn), scales
