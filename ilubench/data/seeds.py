"""Seeds of random streams."""

from ilubench.records.keys import digest

__all__ = ["seed_for"]


def seed_for(user_seed: int, role: str, name: str = "") -> int:
    """Return the seed of a random stream, in [0, 2^31).

    Depends on (user seed, role, attack name) alone, so that two methods meet the same data order.
    """
    return int(digest(["seed", user_seed, role, name])[:8], 16) >> 1
