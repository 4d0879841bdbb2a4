"""What libraries leave alone for good, and what must not stay with them."""

import gc
import weakref

from ilubench.runs.loading import collection_paused


class Model:
    def __init__(self) -> None:
        self.itself = self


def test_what_an_earlier_run_left_is_collected_after_a_later_one_began() -> None:
    with collection_paused():
        pass
    left = Model()
    gone = weakref.ref(left)
    del left
    with collection_paused():
        pass
    gc.collect()
    assert gone() is None
