"""What must be said beside a figure, a row or a table: a kind and its data. Pure.

Code asks for the kind; :mod:`ilubench.records.wording` has the words.
"""

from dataclasses import dataclass
from enum import StrEnum

__all__ = ["Note", "NoteKind"]


class NoteKind(StrEnum):
    """Kinds of notes; a record keeps the value, which therefore never changes."""

    # why a figure has no value, or what its interval lacks
    ZERO_VARIANCE = "zero-variance"
    UNDEFINED = "undefined"
    NO_INTERVAL = "no-interval"
    BEYOND = "beyond"
    OPEN_END = "open-end"
    NO_STEPS = "no-steps"
    NO_ORDER = "no-order"
    CORE_NOT_RUN = "core-not-run"
    ONLY_FURTHER = "only-further"
    UTILITY_AT_CHANCE = "utility-at-chance"
    NO_UTILITY_KEPT = "no-utility-kept"
    BELOW_ORIGINAL = "below-original"
    NOT_FORGOTTEN = "not-forgotten"
    NOT_ATTACKED = "not-attacked"
    NO_FA = "no-fa"
    NO_SHARED_SEED = "no-shared-seed"
    RETRAIN_SHARES_NO_SEED = "retrain-shares-no-seed"
    # ... of a sweep, of one method against several
    TOO_FEW_RUNS = "too-few-runs"
    OUTSIDE_SWEEP = "outside-sweep"
    NO_RECOVERY = "no-recovery"
    NO_COMMON_LEVEL = "no-common-level"
    NOT_COMPARED = "not-compared"
    ALL_TRAINED_ON = "all-trained-on"
    PAIR_TRAINED_ON_ALL = "pair-trained-on-all"
    ATTACK_MISSING = "attack-missing"
    CONTROL_DESTROYS = "control-destroys"
    OTHER_ITEMS = "other-items"
    UNREAD = "unread"
    # why there are no variance components
    TOO_FEW_LEVELS = "too-few-levels"
    ALL_EQUAL = "all-equal"
    # why a row has no rank; the first four are a row's status
    COLLAPSED = "collapsed"
    UNKNOWN = "unknown"
    INCOMPLETE = "incomplete"
    DIVERGED = "diverged"
    REFERENCE = "reference"
    TRAINED_ON = "trained-on"
    NO_CORE = "no-core"
    NO_SAMPLES = "no-samples"
    NO_ROW = "no-row"
    ALONE = "alone"
    ONE_SEED = "one-seed"
    FEW_ITEMS = "few-items"
    FEW_SHARED_SEEDS = "few-shared-seeds"
    NO_VARIANCE = "no-variance"
    # what stands below a table
    NOT_TOLD_APART = "not-told-apart"
    FEW_SEEDS = "few-seeds"
    CORE_UNKNOWN = "core-unknown"
    NO_CORE_NAMED = "no-core-named"
    LACKS_ATTACKS = "lacks-attacks"
    OFF_QUARTILES = "off-quartiles"
    OTHER_LIBRARY = "other-library"
    CONDITION_UNKNOWN = "condition-unknown"


@dataclass(frozen=True, slots=True)
class Note:
    """One note.

    Attributes:
        kind: what is said.
        names: that it is said with: attacks, rows, models; of `UNREAD` the reason in words.
        numbers: likewise.
        about: rows or attacks of which it is said, below a table.
    """

    kind: NoteKind
    names: tuple[str, ...] = ()
    numbers: tuple[float, ...] = ()
    about: tuple[str, ...] = ()
