"""What figures are called, one name each: for terminals, Markdown, the page, exports. Pure."""

from collections.abc import Sequence

from ilubench.specs import MetricSpec

__all__ = [
    "AREA",
    "BEYOND_CONTROL",
    "FA_DIFFERENCE",
    "F_0",
    "F_U",
    "HALF_LIFE",
    "NEVER_KNEW",
    "RA",
    "RA_ALL",
    "RA_CORE",
    "RECOVERY",
    "UTILITY_KEPT",
    "WORST_CASE",
    "name_ra",
    "turned_from",
]

F_0 = "f_0"
F_U = "f_u"
RA = "RA"
RA_CORE = "RA_core"
RA_ALL = "RA_all"
WORST_CASE = "worst case"
RECOVERY = "recovery"
HALF_LIFE = "half-life"
AREA = "area"
UTILITY_KEPT = "utility kept"
FA_DIFFERENCE = "FA difference"
NEVER_KNEW = "never-knew difference"
BEYOND_CONTROL = "recovery beyond control"

ALL_ATTACKS = 6
"""From so many attacks on, a heading names them all instead of each."""


def name_ra(attacks: Sequence[str]) -> str:
    """Return what RA over the attacks of a run is called."""
    if not attacks:
        return RA
    return RA_ALL if len(attacks) >= ALL_ATTACKS else f"{RA} over {{{', '.join(attacks)}}}"


def turned_from(spec: MetricSpec) -> str:
    """Return what a forget metric is of a scorer's own metric: `1 - forget_mc.acc`."""
    raw = f"{spec.scorer}.{spec.metric}"
    return f"1 - {raw}" if spec.direction == "higher" else raw
