"""What every job imports, for the process that workers are forked from. It computes nothing."""

import signal

from ilubench.runs.loading import collection_paused

signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C meanwhile ends it without a traceback

with collection_paused():
    import transformers.modeling_utils  # noqa: F401

    import ilubench.runs.carry_out  # noqa: F401
    from ilubench.scoring.scorers.lm_eval_host import import_library

    import_library()
