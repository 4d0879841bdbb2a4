"""What attacks train on, held against what evaluations ask: the prompts' form, and items in it.

Published attacks trained on one task with the instruction of another, and on text that contained
the questions asked afterwards. The first is refused before anything is trained, the second is
counted and reported.
"""

from collections.abc import Iterable, Iterator, Sequence
from itertools import takewhile

from ilubench.data.overlap import Overlap, count_overlaps, item_texts
from ilubench.data.rows import Tables, render_pair
from ilubench.errors import DataError, SpecError
from ilubench.experiments.experiment import Attack, Experiment, environment_role
from ilubench.experiments.scored_items import scored_items
from ilubench.interfaces import Asked, Chat, PromptAttack, Row
from ilubench.records.results import OverlapRecord
from ilubench.specs import SuiteSpec

__all__ = [
    "attack_roles",
    "check_form",
    "check_split",
    "distinct_examples",
    "expected_overlaps",
    "find_overlaps",
    "overlap_warnings",
    "trained_roles",
]

_ROWS = 4
"""Training rows that are compared, spread over the set: a wrong template is wrong in each."""

_SHOWN = 10
"""Ids that a record lists; it has their number too."""

_CONTEXT = 24

_FORGET, _RETAIN = "forget set", "retain set"
"""What records call the suite's sets, which are looked for in other training text, too."""

_BEGINNING = 64
"""Words of a row of these sets that are looked for: a set may have millions."""


def check_form(experiment: Experiment, attack: Attack) -> None:
    """Refuse an attack that trains on other prompts than its own FA task asks.

    The roles of its own that it trains on are compared: prompt and completion of a few rows must
    be, character for character, the prompt and a right answer of the scorer, asked of these rows.
    Both must be chats, with the same system turn, or neither.

    Raises:
        SpecError: they are not, or it cannot be told; `fa.form: other` declares that on purpose.
        DataError: there are no training rows, or one does not fit its own template.
    """
    fa = attack.spec.fa
    if fa is None or attack.fa is None or fa.form == "other":
        return
    for role in attack.plugin.roles():
        if role in attack.spec.data:
            name = f"{attack.name}.{role}"
            rows = experiment.tables.rows(name)
            chosen = rows[:: max(1, len(rows) // _ROWS)][:_ROWS]
            source = experiment.tables.source(name)
            trained = [render_pair(row, source, name) for row in chosen]
            chat = _chat(experiment, attack, role)
            asked = _asked(attack, role, chosen, chat)
            if chat is not None:
                trained = [(prompt, completion.lstrip()) for prompt, completion in trained]
            for row, own, one in zip(chosen, trained, asked, strict=True):
                _check_row(experiment, attack, role, (row, own, one))


def _refused(attack: Attack, role: str, problem: str, remedy: str) -> SpecError:
    remedy = f"{remedy}, or declare fa.form: other where that is meant"
    return SpecError(problem, where=f"attack {attack.name}", field=f"data.{role}", remedy=remedy)


def _chat(experiment: Experiment, attack: Attack, role: str) -> Chat | None:
    """How the FA task is asked as a chat; the training text must be one likewise."""
    assert attack.fa is not None
    name = attack.role(attack.fa.item_roles()[0], experiment.suite)
    asked, own = experiment.tables.chat(name), experiment.tables.chat(f"{attack.name}.{role}")
    if (own is None) != (asked is None):
        forms = ("a chat", "plain text") if asked is None else ("plain text", "a chat")
        problem = f"it is {forms[0]}, and its FA task asks {name} as {forms[1]}"
        raise _refused(attack, role, problem, "give both roles the same `chat`")
    if own is not None and asked is not None and own.today != asked.today:
        problem = f"its day is {own.today}, and {asked.today} where its FA task asks {name}"
        raise _refused(attack, role, problem, "give both roles the same `today`")
    return asked


def _asked(attack: Attack, role: str, rows: Sequence[Row], chat: Chat | None) -> Sequence[Asked]:
    scorer = attack.fa
    assert scorer is not None
    try:
        found = scorer.asks(rows) if chat is None else scorer.asks(rows, chat)
    except (DataError, SpecError) as error:
        problem = f"its training rows are no rows of its own FA task ({error})"
        raise _refused(attack, role, problem, "give it that task's rows") from error
    if found is None:
        problem = f"{type(scorer).__name__} cannot say what it asks, so that nothing can be checked"
        raise _refused(attack, role, problem, "define its method `asks`")
    return found


def _check_row(
    experiment: Experiment, attack: Attack, role: str, both: tuple[Row, tuple[str, str], Asked]
) -> None:
    row, (prompt, completion), asked = both
    name = f"{attack.name}.{role}"
    item = f"item {row['id']!r}"
    system = experiment.tables.source(name).system
    if system != asked.system:
        problem = f"its system turn is {system!r} where its FA task has {asked.system!r}"
        raise _refused(attack, role, problem, "give it that as `system`")
    gated = experiment.tables.gated(name)
    if gated and (prompt != asked.prompt or completion not in asked.answers):
        problem = f"{item} is not trained as its FA task asks it (its text is gated, not shown)"
        raise _refused(attack, role, problem, "use the task's own prompt and answer")
    if prompt != asked.prompt:
        trained, wanted = _differing(prompt, asked.prompt)
        problem = f"{item} is trained with {trained} where its FA task asks {wanted}"
        raise _refused(attack, role, problem, "use the task's own prompt")
    if completion not in asked.answers:
        wanted = " or ".join(map(repr, asked.answers[:4]))
        problem = f"{item} is trained to answer {completion!r} where its FA task wants {wanted}"
        raise _refused(attack, role, problem, "use the task's own answer")
    fa = attack.spec.fa
    assert fa is not None
    if asked.shots and fa.form == "same":
        problem = f"its FA task shows {asked.shots} examples first, and the training text none"
        raise SpecError(
            problem,
            where=f"attack {attack.name}",
            field="fa.form",
            remedy="declare fa.form: zero_shot",
        )


def _differing(one: str, other: str) -> tuple[str, str]:
    """Return both texts from shortly before their first difference on."""
    alike = takewhile(lambda pair: pair[0] == pair[1], zip(one, other, strict=False))
    start = max(0, len(list(alike)) - _CONTEXT)
    end = start + 3 * _CONTEXT
    return repr(one[start:end]), repr(other[start:end])


# --------------------------------------------------------------------------- overlap


def attack_roles(attack: Attack, suite: SuiteSpec) -> tuple[str, ...]:
    """Return the full names of the roles that an attack trains on, or shows to the model.

    Raises:
        SpecError: neither the attack nor the suite has such a role.
    """
    plugin = attack.plugin
    roles = plugin.shows() if isinstance(plugin, PromptAttack) else plugin.roles()
    named = attack.trained(suite)
    return tuple(dict.fromkeys(full for role in roles for full in named[role]))


def distinct_examples(tables: Tables, suite: SuiteSpec, roles: Sequence[str]) -> int:
    """Return how many different texts some roles have together.

    Raises:
        DataError: data are missing or empty.
    """
    return len({text for role in roles for text in _texts(tables, suite, role)})


def _texts(tables: Tables, suite: SuiteSpec, role: str) -> list[str]:
    source = tables.source(role)
    texts = ["".join(render_pair(row, source, role)) for row in tables.rows(role)]
    if source.overlong == "truncate":
        # a token is no more than a word: these words hold at least the tokens that are trained on
        most = source.max_length or suite.max_length
        texts = [" ".join(text.split(maxsplit=most)[:most]) for text in texts]
    return texts


def trained_roles(experiment: Experiment) -> Iterator[str]:
    """Yield the full names of the roles that attacks, environments and the method train on."""
    for attack in experiment.attacks:
        yield from attack_roles(attack, experiment.suite)
    for name in experiment.method.environment_names():
        yield environment_role(experiment.suite, name)
    if experiment.method.trains:
        yield from (*experiment.suite.forget, *experiment.suite.retain)


def check_split(experiment: Experiment, attack: Attack) -> None:
    """Refuse an attack that names the items to score, and trains on some of them.

    Raises:
        SpecError: it does, or names no items.
        DataError: data are missing or empty, or an item has no words that could be looked for.
    """
    tables, suite = experiment.tables, experiment.suite
    for scorer, chosen in scored_items(experiment, attack).items():
        items = _items(experiment, experiment.scorers[scorer].item_roles())
        asked = {scorer: {item: items[item] for item in items if item in chosen}}
        for role in attack_roles(attack, suite):
            found = count_overlaps(_texts(tables, suite, role), asked)[scorer]
            if found.contained:
                shown = ", ".join(found.contained[:3])
                problem = (
                    f"{len(found.contained)} of the {found.items} items that it scores are in the "
                    f"training text {role}: {shown}"
                )
                remedy = "train on the rows of other items (`where` of the role), or score others"
                where = f"attack {attack.name}"
                raise SpecError(problem, where=where, field=f"only.{scorer}", remedy=remedy)


def _evaluations(experiment: Experiment) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Name of each scorer, and the full names of its items' roles."""
    for name, scorer in experiment.scorers.items():
        yield name, scorer.item_roles()
    for attack in experiment.attacks:
        if attack.fa is not None:
            roles = (attack.role(role, experiment.suite) for role in attack.fa.item_roles())
            yield f"{attack.name}/fa", tuple(roles)


def _items(experiment: Experiment, roles: Sequence[str]) -> dict[str, list[str]]:
    """The texts of some roles' rows, by id."""
    return {
        str(row["id"]) if len(roles) == 1 else f"{role}/{row['id']}": _item_texts(row, role)
        for role in roles
        for row in experiment.tables.rows(role)
    }


def _sets(experiment: Experiment) -> dict[str, dict[str, list[str]]]:
    """The beginnings of the rows that are to be forgotten and retained, where they are read."""
    if not experiment.method.trains:
        return {}
    suite = experiment.suite
    return {
        name: {
            item: [" ".join(text.split(maxsplit=_BEGINNING)[:_BEGINNING]) for text in texts]
            for item, texts in _items(experiment, roles).items()
        }
        for name, roles in ((_FORGET, suite.forget), (_RETAIN, suite.retain))
    }


def find_overlaps(experiment: Experiment) -> tuple[OverlapRecord, ...]:
    """Return how many items of each scorer are in what the attacks and the method train on.

    An item is a row of the scorer's items' roles, whatever limit the scorer has. The rows of the
    suite's forget and retain sets are looked for in all other training text.

    Raises:
        DataError: data are missing or empty, or an item has no words that could be looked for.
    """
    suite = experiment.suite
    roles = dict.fromkeys(trained_roles(experiment))
    if not roles:
        return ()
    items = {name: _items(experiment, own) for name, own in _evaluations(experiment)}
    sets = _sets(experiment)
    return tuple(
        _record(role, name, overlap)
        for role in roles
        for name, overlap in count_overlaps(
            _texts(experiment.tables, suite, role),
            items if role in suite.forget + suite.retain else items | sets,
        ).items()
    )


def _record(role: str, scorer: str, overlap: Overlap) -> OverlapRecord:
    return OverlapRecord(
        role=role,
        scorer=scorer,
        items=overlap.items,
        contained=len(overlap.contained),
        share=overlap.share,
        ids=overlap.contained[:_SHOWN],
        duplicates=len(overlap.duplicates),
        duplicate_ids=overlap.duplicates[:_SHOWN],
    )


def _item_texts(row: Row, role: str) -> list[str]:
    texts = item_texts(row)
    if not texts:
        raise DataError(
            f"data.{role}: item {row['id']!r} has no words, so that nobody can see whether it is "
            "in a training text; give it a column with its text"
        )
    return texts


def overlap_warnings(experiment: Experiment, records: Iterable[OverlapRecord]) -> tuple[str, ...]:
    """Return a line for each training text that holds items which measure what it did.

    That is the suite's own items, the attack's own FA items, and rows of the suite's forget and
    retain sets. These sets themselves are the same for all methods and may hold items by design;
    they are not warned of, whoever trains on them (:func:`expected_overlaps`). Nor are items that
    are not scored along the attack that trains on them.
    """
    suite = experiment.suite
    trained = {attack.name: attack_roles(attack, suite) for attack in experiment.attacks}
    split = {
        (role, name)
        for attack in experiment.attacks
        if attack.only  # checked before: none of the items that it scores is in its text
        for role in attack_roles(attack, suite)
        for name in (*attack.only, _FORGET)
    }
    lines = []
    for record in records:
        owner = record.scorer.rpartition("/")[0]
        foreign = bool(owner) and record.role not in trained.get(owner, ())
        by_design = record.role in suite.forget + suite.retain or (
            (record.role, record.scorer) in split
        )
        if record.contained and not foreign and not by_design:
            what = "rows of the" if record.scorer in (_FORGET, _RETAIN) else "items of"
            lines.append(
                f"{record.contained} of {record.items} {what} {record.scorer} "
                f"({record.share:.1%}) are contained in the training text {record.role}, "
                f"{record.duplicates} of them word for word: {', '.join(record.ids[:3])}"
                + (", ..." if record.contained > 3 else "")
            )
    return tuple(lines)


def expected_overlaps(experiment: Experiment, records: Iterable[OverlapRecord]) -> tuple[str, ...]:
    """Return a line for each attack whose training text is of the suite's forget or retain set.

    It is meant to be: what such an attack brings back, or keeps, is taught in part. That which
    names the items that it scores trains on others.
    """
    suite, found = experiment.suite, tuple(records)
    lines = []
    for attack in experiment.attacks:
        roles, verb = attack_roles(attack, suite), "trains on"
        if isinstance(attack.plugin, PromptAttack):
            verb = "shows"
        for name, own in ((_FORGET, suite.forget), (_RETAIN, suite.retain)):
            mine = [role for role in roles if role in own]
            shared = _counted(one for one in found if one.role in mine and "/" not in one.scorer)
            if mine:
                lines.append(
                    f"attack {attack.name} {verb} the suite's {name} ({', '.join(mine)}), as it is "
                    f"meant to; contained in it: {shared or 'no item'}"
                )
        if attack.only:
            shared = _counted(
                one for one in found if one.role in roles and one.scorer in attack.only
            )
            lines.append(
                f"attack {attack.name} {verb} {shared or 'no item'}, as it is meant to; it scores "
                f"others only: {', '.join(attack.only)}"
            )
    return tuple(lines)


def _counted(records: Iterable[OverlapRecord]) -> str:
    return ", ".join(
        f"{one.contained} of {one.items} items of {one.scorer}" for one in records if one.contained
    )
