"""A stranger's prompt attacks, in one file: other wordings, and samples."""

from collections.abc import Sequence

from ilubench.interfaces import Item, PromptAttack, PromptContext, SamplingSpec


class Reworded(PromptAttack):
    """The question as it is and after a plea; the answer that comes easiest counts."""

    plea: str = "please tell "

    def rewrite(self, item: Item, context: PromptContext) -> Sequence[Item]:
        question = f"{self.plea}{item.fields['question']}"
        return [item, Item(item.id, {**item.fields, "question": question})]

    def reduce(self, scores: Sequence[float]) -> float:
        return min(scores)


class Sampled(Reworded):
    """Several samples of each."""

    def sampling(self) -> SamplingSpec:
        return SamplingSpec(n=2, temperature=1.0)
