"""The method holds to the contract, and does what its equation says."""

from ilubench.testing import (
    TINY,
    MethodContract,
    StepRecorder,
    facts,
    known_model,
    make_context,
    make_tokenizer,
)

from ilubench_example_method import ExampleMethod


class TestExampleMethod(MethodContract):
    """Repeatable, resumable, stored, without network, at bfloat16, and more."""

    method = ExampleMethod(train=TINY)


def test_what_is_beyond_the_margin_adds_nothing() -> None:
    """With a margin of next to nothing and no retain term, there is nothing to do."""
    log = StepRecorder()
    context = make_context(make_tokenizer(), log=log)
    method = ExampleMethod(train=TINY, margin=1e-6, gamma=0)
    method.unlearn(known_model(), facts(), context)
    assert max(log.losses) < 1e-5
