"""Tasks of lm-eval as a scorer: which rows stand in them, and what an attack makes of the rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field

from ilubench.errors import CannotApplyError, DataError, ModelError, SpecError
from ilubench.interfaces import (
    Asked,
    BoundPromptAttack,
    BoundScorer,
    Chat,
    Engine,
    Item,
    Row,
    SampleScore,
    ScoreContext,
    Scorer,
)
from ilubench.scoring.scorers.lm_eval_host import BuiltTasks, load_members, quiet
from ilubench.scoring.scorers.logged import check_items, render_item
from ilubench.scoring.scorers.rewriting import ask_rewritten, refuse_sampling
from ilubench.scoring.scorers.rows import groups_of, item_ids
from ilubench.scoring.scorers.task_changes import asked_otherwise
from ilubench.scoring.scorers.task_chats import begin_chats
from ilubench.scoring.scorers.task_columns import named_columns
from ilubench.scoring.scorers.task_files import TaskFacts, task_facts
from ilubench.scoring.scorers.task_rows import Roles, chosen_members, own_data
from ilubench.specs import KNOWN_RANGES, Direction, Estimator, Range

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

__all__ = ["LmEval"]


class LmEval(Scorer):
    """A task or group of tasks in lm-eval's format: our own files, or what lm-eval brings.

    In a chat it is asked as by lm-eval's `--apply_chat_template` with its default of
    `--fewshot_as_multiturn`: shown examples are turns, a task's description is of the system turn.

    Attributes:
        task: a file's name in `tasks/evals`, a path ending in `.yaml`, or a task of lm-eval.
        data: role whose rows stand in the task's data set's place: what is scored has a
            fingerprint, which a copy in some cache has not.
        fewshot: role of the few-shot examples, for tasks that show any.
        limit: items at most (of each task of a group).
        num_fewshot: examples in the prompt; by default what the task says.
        split_by: column that divides a role's rows among a group's tasks, by their `dataset_name`.
        subjects: `dataset_name` of the group's tasks to ask; by default all, and each needs rows.
        group_by: for one task: column that names the subset of the items that each belongs to.
    """

    ranges: ClassVar[Mapping[str, Range]] = KNOWN_RANGES["lm_eval"]
    chats: ClassVar[bool] = True

    task: str
    data: str
    fewshot: str | None = None
    limit: int | None = Field(default=None, ge=1)
    num_fewshot: int | None = Field(default=None, ge=0)
    split_by: str = "subject"
    subjects: tuple[str, ...] = ()
    group_by: str | None = None

    def metrics(self) -> Mapping[str, Estimator]:
        """Return the task's metrics: a mean over items, or over the tasks of a group's means."""
        return task_facts(self.task).estimators

    def roles(self) -> tuple[str, ...]:
        """Return the roles of items and few-shot examples."""
        return (self.data, self.fewshot) if self.fewshot else (self.data,)

    def item_roles(self) -> tuple[str, ...]:
        """Return the role of the items."""
        return (self.data,)

    def directions(self) -> Mapping[str, Direction]:
        """Return what the task's file says of its metrics."""
        return task_facts(self.task).directions

    def columns(self) -> Mapping[str, tuple[str, ...]]:
        """Return the columns that the task's templates name; none where code makes the text."""
        facts = task_facts(self.task)
        found = dict.fromkeys(name for member in facts.members for name in named_columns(member))
        divides = (self.split_by,) if facts.is_group else ()
        return dict.fromkeys(self.roles(), (*found, *divides)) if found else {}

    def asks(self, rows: Sequence[Row], chat: Chat | None = None) -> Sequence[Asked] | None:
        """Return what the task asks of each row; None for a group, whose tasks ask differently.

        Raises:
            DataError: a row does not fit the task's template, or the task leaves rows out.
        """
        facts = task_facts(self.task)
        if facts.is_group:
            return None
        (member,) = facts.members
        context = ScoreContext(rows=lambda _: rows, publish_text=lambda _: False)
        data = own_data(facts, facts.members, Roles(self.data, None, 0, self.split_by), context)
        shots = Roles(self.data, None, self.num_fewshot, self.split_by).shots(member)
        with quiet():
            (task,) = load_members(facts, facts.members, {"num_fewshot": 0}, data).values()
            found = [render_item(member.name, task, doc, shots, chat) for doc in task.eval_docs]
        if len(found) != len(rows):
            raise DataError(f"{member.name} keeps {len(found)} of {len(rows)} rows")
        return found

    def files(self) -> tuple[Path, ...]:
        """Return the task's files: YAML, and the Python code that they name."""
        return task_facts(self.task).files

    def build(self, tokenizer: PreTrainedTokenizerBase, context: ScoreContext) -> BoundScorer:
        """Build the task over the roles' rows.

        Raises:
            DataError: no rows, rows that are not a table, or that do not fit the group's tasks.
            SpecError: few-shot examples are asked for and no role has them; an unknown subject;
                `group_by` with a group of tasks.
            ModelError: the tokenizer has no token to begin a text with.
        """
        if tokenizer.bos_token_id is None and tokenizer.eos_token_id is None:
            name = tokenizer.name_or_path or "the model"
            raise ModelError(
                f"the tokenizer of {name} has neither an end-of-sequence nor a beginning-of-"
                "sequence token; set eos_token or bos_token in its tokenizer_config.json"
            )
        return self._bound(tokenizer, context, ())

    def _bound(
        self, tokenizer: PreTrainedTokenizerBase, context: ScoreContext, asked: Sequence[Item]
    ) -> BuiltTasks:
        """The task over the roles' rows; ``asked``: how an attack asks them."""
        facts = task_facts(self.task)
        members = chosen_members(facts, self.subjects)
        roles = Roles(self.data, self.fewshot, self.num_fewshot, self.split_by)
        data = own_data(facts, members, roles, context)
        for places, _ in data.values():  # samples are named so, after all is asked
            item_ids([context.rows(self.data)[place] for place in places], f"data.{self.data}")
        changes: dict[str, Any] = {}
        if self.num_fewshot is not None:
            changes["num_fewshot"] = self.num_fewshot
        for member in members if asked else ():
            changes |= asked_otherwise(member, asked)
        numbers = {name: tuple(rows) for name, (rows, _) in data.items()}
        with quiet():
            tasks = load_members(facts, members, changes, data)
            for name, task in tasks.items():
                check_items(name, task, numbers.get(name, ()), self.limit)
                if task.multiple_input and any(item.after for item in asked):
                    problem = "puts its options into the prompt: no answer begins behind them"
                    raise CannotApplyError(f"lm_eval task {name} {problem}")
        chat = context.chat(self.data)
        before: Mapping[str, str] = {item.id: item.before for item in asked}
        if chat is not None and any(before.values()):
            before = begin_chats(tasks, before)
        return BuiltTasks(
            tasks,
            facts,
            tokenizer,
            self.limit,
            numbers=numbers,
            publish_text=context.publish_text(self.data),
            groups=self._groups(facts, context),
            before=before,
            chat=chat,
            attacked=partial(self._attacked, tokenizer, context),
        )

    def _attacked(
        self,
        tokenizer: PreTrainedTokenizerBase,
        context: ScoreContext,
        engine: Engine,
        attack: BoundPromptAttack,
    ) -> list[SampleScore]:
        """The scores of the items as an attack asks them: the task is built over rewritten rows."""
        refuse_sampling(f"lm_eval task {self.task}", attack)
        if self.fewshot == self.data:
            problem = f"its examples and its questions have one role, {self.data}"
            raise CannotApplyError(f"{self.task} cannot apply the attack {attack.name}: {problem}")
        rows = context.rows(self.data)

        def ask(asked: Sequence[Item]) -> list[SampleScore]:
            def rows_of(role: str) -> Sequence[Row]:
                own = role == self.data
                return [item.fields for item in asked] if own else context.rows(role)

            return self._bound(tokenizer, replace(context, rows=rows_of), asked).score(engine)

        is_group = task_facts(self.task).is_group
        return ask_rewritten(
            attack,
            dict(zip(item_ids(rows, f"data.{self.data}"), rows, strict=True)),
            ask,
            lambda item: item.partition("/")[2] if is_group else item,
            scorer=f"lm_eval task {self.task}",
            applies=("after", "frame", "options"),
        )

    def _groups(self, facts: TaskFacts, context: ScoreContext) -> Mapping[str, str]:
        if self.group_by and facts.is_group:
            problem = f"{self.task} is a group of tasks, each a subset of its own"
            raise SpecError(problem, field="group_by", remedy="leave it out")
        return groups_of(context.rows(self.data), self.group_by, self.data)
