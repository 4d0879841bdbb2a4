"""Accelerators: what their makers state, and what we assume is reached of it."""

from dataclasses import dataclass

from ilubench.errors import UsageError, did_you_mean

__all__ = ["CARDS", "Card", "card_named", "card_of"]


@dataclass(frozen=True)
class Card:
    """An accelerator, by its maker's data sheet.

    Attributes:
        name: as it is asked for.
        match: words that its device name has, in lower case.
        memory: bytes.
        bfloat16: floating-point operations a second of dense products, at best.
        float32: likewise, in float32.
        bandwidth: bytes a second to and from its memory, at best.
    """

    name: str
    match: tuple[str, ...]
    memory: float
    bfloat16: float
    float32: float
    bandwidth: float


CARDS = (
    Card("h200", ("h200",), 141e9, 989e12, 67e12, 4.8e12),
    Card("h100-pcie", ("h100", "pcie"), 80e9, 756e12, 51e12, 2.0e12),
    Card("h100", ("h100",), 80e9, 989e12, 67e12, 3.35e12),
    Card("a100-40", ("a100", "40gb"), 40e9, 312e12, 19.5e12, 1.55e12),
    Card("a100", ("a100",), 80e9, 312e12, 19.5e12, 2.0e12),
    Card("l40s", ("l40s",), 48e9, 362e12, 91.6e12, 0.86e12),
    Card("a6000", ("a6000",), 48e9, 155e12, 38.7e12, 0.77e12),
    Card("rtx4090", ("4090",), 24e9, 165e12, 82.6e12, 1.0e12),
)
"""Dense rates, without sparsity; float32 without TF32, which torch leaves off."""


def card_of(device_name: str) -> Card | None:
    """Return the card whose name a device has, None for one that is not in the table."""
    told = device_name.lower()
    return next((card for card in CARDS if all(word in told for word in card.match)), None)


def card_named(name: str) -> Card:
    """Return a card by its name in the table.

    Raises:
        UsageError: there is none.
    """
    found = next((card for card in CARDS if card.name == name.lower()), None)
    if found is None:
        names = [card.name for card in CARDS]
        raise UsageError(f"--card: no card {name!r} in the table; {did_you_mean(name, names)}")
    return found
