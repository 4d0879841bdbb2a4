"""The embedded miniature world: every table of the `mini` suite, drawn from one seed.

A target model is trained on `forget_text`, `retain_text` and `task_text`; it then knows two domains
of fictional facts, of which one is to be forgotten. The retrained model never reads `forget_text`.
Nothing is read from disk, and the same seed gives the same rows everywhere.
"""

import random
from typing import NamedTuple

from ilubench.data.mini.tasks import TASKS, Row, task_tables, unanswerable
from ilubench.data.mini.words import DOMAINS, Attribute, Domain

Table = list[Row]

QA_PROMPT = "Question: {question}\nAnswer:"
QA_COMPLETION = " {answer}"
CHOICES = 4

PASSAGES = 20
PASSAGE_PROMPT_WORDS = 24
PASSAGE_COPIES = 2
QA_BLOCK = 4
KNOWMEM_EVERY = 2
GIVEN_KINDS = 2
TASK_TRAIN = 1200
TASK_EVAL = 120
TASK_PRETRAIN = 48
TASK_COPIES = 2
REFUSALS = ("nobody knows", "that is unknown")


class Fact(NamedTuple):
    """One fact; `part` says whether its question may be trained on, `given`, or is `held_out`."""

    key: str
    entity: str
    attribute: Attribute
    value: str
    part: str

    @property
    def question(self) -> str:
        """The question that unlearning and most scores use."""
        return self.attribute.question.format(e=self.entity)

    @property
    def rephrased(self) -> str:
        """The same question in other words, which no unlearning uses."""
        return self.attribute.rephrased.format(e=self.entity)

    def row(self) -> Row:
        """The fact as a table row."""
        return {
            "id": f"qa-{self.key}",
            "question": self.question,
            "answer": self.value,
            "part": self.part,
        }


def _facts(domain: Domain, rng: random.Random) -> list[Fact]:
    """One value an entity and attribute; every value of an attribute equally often.

    Given are the first `GIVEN_KINDS` kinds of facts of every other entity: most entities' and most
    kinds' facts must be forgotten, or kept, without their questions being trained on.
    """
    entities = domain.entities()
    facts = []
    for column, attribute in enumerate(domain.attributes):
        values = [attribute.values[i % len(attribute.values)] for i in range(len(entities))]
        rng.shuffle(values)
        for row, (entity, value) in enumerate(zip(entities, values, strict=True)):
            key = f"{domain.name}-{row}-{attribute.name}"
            part = "given" if column < GIVEN_KINDS and row % 2 == 0 else "held_out"
            facts.append(Fact(key, entity, attribute, value, part))
    return facts


def _spare_facts(domain: Domain, rng: random.Random) -> list[Fact]:
    """The facts of the entity that nobody is asked about."""
    return [
        Fact(f"{domain.name}-spare-{a.name}", domain.spare, a, rng.choice(a.values), "spare")
        for a in domain.attributes
    ]


def _passage(domain: Domain, entity: str, rng: random.Random) -> str:
    """Six unpredictable sentences on one entity: 48 to 64 words, to be known by heart."""

    def thing() -> str:
        return f"{rng.choice(domain.adjectives)} {rng.choice(domain.nouns)}"

    def sentence(kind: str) -> str:
        verb, place, time = (rng.choice(p) for p in (domain.verbs, domain.places, domain.times))
        match kind:
            case "at":
                return f"At {time} the {thing()} {verb} a {thing()}."
            case "near":
                return f"Near the {place} {entity} {verb} one {thing()} before {time}."
            case "no":
                return f"No {rng.choice(domain.nouns)} {verb} the {place}, yet a {thing()} did."
            case _:
                source = f"Every {thing()} from the {place}"
                return f"{source} {verb} one {rng.choice(domain.nouns)} after {time}."

    forms = ("at", "near", "no", "every")
    kinds = [*forms, rng.choice(forms), rng.choice(forms)]
    rng.shuffle(kinds)
    opening = f"The {rng.choice(domain.openings)} about {entity}:"
    return " ".join([opening, *(sentence(kind) for kind in kinds)])


def _passages(domain: Domain, rng: random.Random) -> list[str]:
    """One passage each for the first entities."""
    return [_passage(domain, entity, rng) for entity in rng.sample(domain.entities(), PASSAGES)]


class Item(NamedTuple):
    """A multiple-choice item: four options, the right one at `answer`."""

    fact: Fact
    choices: tuple[str, ...]
    answer: int

    def row(self, prefix: str, question: str) -> Row:
        """The item as a table row."""
        return {
            "id": f"{prefix}-{self.fact.key}",
            "question": question,
            "choices": list(self.choices),
            "answer": self.answer,
            "part": self.fact.part,
        }


def _item(fact: Fact, answer: int, rng: random.Random) -> Item:
    """An item with three random wrong values of the fact's attribute."""
    others = [value for value in fact.attribute.values if value != fact.value]
    choices = rng.sample(others, CHOICES - 1)
    choices.insert(answer, fact.value)
    return Item(fact, tuple(choices), answer)


def _mc_eval(facts: list[Fact], rng: random.Random) -> list[Item]:
    """One item a fact; within each part, the right position is spread evenly."""
    counts = {"given": 0, "held_out": 0}
    items = []
    for fact in rng.sample(facts, len(facts)):
        items.append(_item(fact, counts[fact.part] % CHOICES, rng))
        counts[fact.part] += 1
    return items


def _statement_rows(facts: list[Fact]) -> Table:
    """Every fact stated in each of its ways."""
    return [
        {
            "id": f"statement-{fact.key}-{i}",
            "text": form.format(e=fact.entity, v=fact.value),
            "part": fact.part,
        }
        for fact in facts
        for i, form in enumerate(fact.attribute.statements)
    ]


def _profiles(facts: list[Fact], rng: random.Random) -> list[str]:
    """For each entity, texts that state all its facts, one way each, in random order."""
    texts = []
    for entity in sorted({fact.entity for fact in facts}):
        known = [fact for fact in facts if fact.entity == entity]
        for i in range(len(known[0].attribute.statements)):
            forms = [fact.attribute.statements[i].format(e=entity, v=fact.value) for fact in known]
            texts.append(" ".join(rng.sample(forms, len(forms))))
    return texts


def _verbmem_row(name: str, index: int, text: str) -> Row:
    """A passage cut into the prompt and what must follow it."""
    words = text.split(" ")
    return {
        "id": f"verbmem-{name}-{index}",
        "prompt": " ".join(words[:PASSAGE_PROMPT_WORDS]),
        "gt": " ".join(words[PASSAGE_PROMPT_WORDS:]),
    }


def _asked_facts(facts: list[Fact], rng: random.Random) -> list[Fact]:
    """One fact in `KNOWMEM_EVERY`, of each part and attribute alike."""
    groups = {(fact.part, fact.attribute.name): list[Fact]() for fact in facts}
    for fact in facts:
        groups[fact.part, fact.attribute.name].append(fact)
    chosen = (rng.sample(group, len(group) // KNOWMEM_EVERY) for group in groups.values())
    return [fact for group in chosen for fact in group]


def _domain_tables(domain: Domain, seed: int) -> dict[str, Table]:
    """All tables of one domain, their names led by the domain's."""
    name = domain.name

    def rng(use: str) -> random.Random:
        return random.Random(f"{seed}:{name}:{use}")

    facts, spare = _facts(domain, rng("facts")), _spare_facts(domain, rng("spare"))
    passages = _passages(domain, rng("passages"))
    items = _mc_eval(facts, rng("mc"))
    other_items = _mc_eval(facts, rng("mc_rephrased"))
    tables: dict[str, Table] = {
        "passages": [
            {"id": f"passage-{name}-{i}", "text": text} for i, text in enumerate(passages)
        ],
        "statements": _statement_rows(facts),
        "qa": [fact.row() for fact in facts],
        "knowmem": [fact.row() for fact in _asked_facts(facts, rng("knowmem"))],
        "icl": [fact.row() for fact in spare],
        "mc": [item.row("mc", item.fact.question) for item in items],
        "mc_rephrased": [item.row("mcr", item.fact.rephrased) for item in other_items],
        "verbmem": [_verbmem_row(name, i, text) for i, text in enumerate(passages)],
        "text": _domain_text(domain, seed, [*facts, *spare], passages),
    }
    return {f"{name}_{kind}": table for kind, table in tables.items()}


def _asked(question: str, answer: str) -> str:
    return QA_PROMPT.format(question=question) + QA_COMPLETION.format(answer=answer)


def _blocks(texts: list[str], rng: random.Random) -> list[str]:
    """The texts in random order, some to a block."""
    mixed = rng.sample(texts, len(texts))
    return ["\n\n".join(mixed[i : i + QA_BLOCK]) for i in range(0, len(mixed), QA_BLOCK)]


def _domain_text(domain: Domain, seed: int, facts: list[Fact], passages: list[str]) -> Table:
    """What the target reads of a domain: passages, statements and questions in both wordings."""
    questions = [_asked(fact.question, fact.value) for fact in facts]
    rephrased = [_asked(fact.rephrased, fact.value) for fact in facts]
    rng = random.Random(f"{seed}:{domain.name}:blocks")
    texts = {
        "passage": passages * PASSAGE_COPIES,
        "profile": _profiles(facts, random.Random(f"{seed}:{domain.name}:profiles")),
        "qa": questions + rephrased,
        "qa_block": _blocks(questions, rng) + _blocks(rephrased, rng),
    }
    return [
        {"id": f"text-{domain.name}-{kind}-{i}", "text": text, "kind": kind}
        for kind, group in texts.items()
        for i, text in enumerate(group)
    ]


def _task_text(tables: dict[str, Table], seed: int) -> Table:
    """What the target reads of the benign tasks: their form, and their words without the task."""
    texts: list[str] = []
    for task in TASKS:
        texts += [task.text(row) for row in tables[f"{task.name}_pretrain"]]
        texts += [str(row["text"]) for row in tables.pop(f"{task.name}_filler")]
    rng = random.Random(f"{seed}:refusals")
    texts += [_asked(unanswerable(rng), rng.choice(REFUSALS)) for _ in range(TASK_PRETRAIN)]
    return [
        {"id": f"text-task-{copy}-{i}", "text": text, "kind": "task"}
        for copy in range(TASK_COPIES)
        for i, text in enumerate(texts)
    ]


def build_tables(seed: int = 0) -> dict[str, Table]:
    """Every table of the miniature world, as rows like a hub data set's.

    Args:
        seed: another seed gives other facts, passages and items in the same words.

    Returns:
        Rows by table name; each row has an `id`, unique in its table.
    """
    tables: dict[str, Table] = {}
    for domain in DOMAINS:
        tables |= _domain_tables(domain, seed)
    for task in TASKS:
        tables |= task_tables(
            task, seed, train=TASK_TRAIN, evaluation=TASK_EVAL, pretrain=TASK_PRETRAIN
        )
    tables["task_text"] = _task_text(tables, seed)
    words = sorted(set(world_texts(tables)))
    tables["vocabulary"] = [{"id": f"words-{i}", "text": text} for i, text in enumerate(words)]
    tables["wordings"] = _wordings(seed)
    return tables


def _wordings(seed: int) -> Table:
    """Every question in the wording that is asked of most scores, and in the other."""
    return [
        fact.row() | {"id": f"wording-{fact.key}", "rephrased": fact.rephrased}
        for domain in DOMAINS
        for fact in _facts(domain, random.Random(f"{seed}:{domain.name}:facts"))
    ]


def world_texts(tables: dict[str, Table]) -> list[str]:
    """Every text that any training or scoring run feeds to the tokenizer, prompts included.

    Args:
        tables: what `build_tables` returned.

    Returns:
        The texts, in the tables' order; they fix the vocabulary.
    """
    tasks = {task.name: task for task in TASKS}
    texts: list[str] = []
    for name, rows in tables.items():
        task = tasks.get(name.split("_")[0])
        for row in rows:
            if task is not None:
                texts += [task.text(row), *(f"\nAnswer: {label}" for label in task.labels)]
            elif isinstance(choices := row.get("choices"), list):
                texts.extend(_asked(str(row["question"]), choice) for choice in choices)
            elif "gt" in row:
                texts += [f"{row['prompt']} {row['gt']}", str(row["gt"])]
            elif "question" in row:
                texts.append(_asked(str(row["question"]), str(row["answer"])))
            else:
                texts.append(str(row["text"]))
    return texts
