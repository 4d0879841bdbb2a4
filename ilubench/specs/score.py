"""What `ilubench score` is asked for."""

from typing import Annotated, Literal

from pydantic import Field, StringConstraints

from ilubench.specs.base import Spec

__all__ = ["ScoreSpec"]


class ScoreSpec(Spec):
    """The words of `ilubench score MODEL`, before names are resolved: a suite's scorers, or tasks.

    Of a suite: ``scorers``. Of tasks in lm-eval's format, which need no suite: the rest up to
    ``split_by``.
    """

    suite: str = Field(default="mini", description="a suite's name or file; task= needs none")
    scorers: tuple[str, ...] = Field(default=(), description="some of the suite's; without: all")
    task: tuple[str, ...] = Field(default=(), description="files ending in .yaml, or lm-eval's own")
    data: tuple[str, ...] = Field(
        default=(), description="files of rows: one for all tasks, or one each"
    )
    fewshot: tuple[str, ...] = Field(default=(), description="files of examples, like data")
    num_fewshot: int | None = Field(default=None, ge=0, description="examples; without: the task's")
    limit: int | None = Field(default=None, ge=1, description="items at most, of each task")
    split_by: str = Field(default="subject", description="column that divides rows among a group")
    engine: Literal["auto", "hf", "vllm"] = Field(default="auto", description="what scores")
    device: Annotated[str, StringConstraints(to_lower=True)] = Field(
        default="auto", description="auto, cpu, cuda or cuda:1"
    )
    texts: bool = Field(
        default=False,
        description="keep what the model writes, beside the samples; never of gated data",
    )
    out: str = Field(default="runs", description="folder of results and cache")
