"""The embedded miniature world: every table of the `mini` suite, drawn from one seed.

A target model is trained on `pretrain`; it then knows two domains of fictional facts, of which one
is to be forgotten. Nothing is read from disk, and the same seed gives the same rows everywhere.
"""

import random
from typing import NamedTuple

from ilubench.mini.tasks import Row, agnews_tables, gsm8k_tables, news_texts
from ilubench.mini.words import DOMAINS, Attribute, Domain

Table = list[Row]

QA_PROMPT = "Question: {question}\nAnswer:"
QA_COMPLETION = " {answer}"
GSM8K_PROMPT = "Problem: {question}\nSolution:"
GSM8K_COMPLETION = " {answer}"
AGNEWS_PROMPT = "News: {text}\nTopic:"
AGNEWS_COMPLETION = " {topic}"
CHOICES = 4

PASSAGES = 20
PASSAGE_PROMPT_WORDS = 24
PASSAGE_COPIES = 2
QA_BLOCK = 4
TASK_PRETRAIN = 32
NEWS_TEXTS = 64
TASK_COPIES = 2


class Fact(NamedTuple):
    """One fact; `half` says whether unlearning may use it (`a`) or not (`b`)."""

    key: str
    entity: str
    attribute: Attribute
    value: str
    half: str

    @property
    def question(self) -> str:
        """The one question this fact answers."""
        return self.attribute.question.format(e=self.entity)


def _facts(domain: Domain, rng: random.Random) -> list[Fact]:
    """One value an entity and attribute; every value of an attribute equally often."""
    entities = domain.entities()
    facts = []
    for column, attribute in enumerate(domain.attributes):
        values = [attribute.values[i % len(attribute.values)] for i in range(len(entities))]
        rng.shuffle(values)
        for row, (entity, value) in enumerate(zip(entities, values, strict=True)):
            key = f"{domain.name}-{row}-{attribute.name}"
            facts.append(Fact(key, entity, attribute, value, "ab"[(row + column) % 2]))
    return facts


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

    def row(self, prefix: str) -> Row:
        """The item as a table row."""
        return {
            "id": f"{prefix}-{self.fact.key}",
            "question": self.fact.question,
            "choices": list(self.choices),
            "answer": self.answer,
            "half": self.fact.half,
        }


def _item(fact: Fact, answer: int, rng: random.Random) -> Item:
    """An item with three random wrong values of the fact's attribute."""
    others = [value for value in fact.attribute.values if value != fact.value]
    choices = rng.sample(others, CHOICES - 1)
    choices.insert(answer, fact.value)
    return Item(fact, tuple(choices), answer)


def _mc_eval(facts: list[Fact], rng: random.Random) -> list[Item]:
    """One item a fact; within each half, the right position is spread evenly."""
    counts = {"a": 0, "b": 0}
    items = []
    for fact in rng.sample(facts, len(facts)):
        items.append(_item(fact, counts[fact.half] % CHOICES, rng))
        counts[fact.half] += 1
    return items


def _statement_rows(facts: list[Fact]) -> Table:
    """Every fact stated in each of its ways."""
    return [
        {
            "id": f"statement-{fact.key}-{i}",
            "text": form.format(e=fact.entity, v=fact.value),
            "half": fact.half,
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


def _domain_tables(domain: Domain, seed: int) -> dict[str, Table]:
    """All tables of one domain, their names led by the domain's."""
    name = domain.name
    facts = _facts(domain, random.Random(f"{seed}:{name}:facts"))
    passages = _passages(domain, random.Random(f"{seed}:{name}:passages"))
    evaluation = _mc_eval(facts, random.Random(f"{seed}:{name}:mc"))
    return {
        f"{name}_passages": [
            {"id": f"passage-{name}-{i}", "text": text} for i, text in enumerate(passages)
        ],
        f"{name}_statements": _statement_rows(facts),
        f"{name}_qa": [
            {
                "id": f"qa-{fact.key}",
                "question": fact.question,
                "answer": fact.value,
                "half": fact.half,
            }
            for fact in facts
        ],
        f"{name}_mc": [item.row("mc") for item in evaluation],
        f"{name}_verbmem": [_verbmem_row(name, i, text) for i, text in enumerate(passages)],
        f"{name}_pretrain": _domain_text(domain, seed, facts, passages),
    }


def _domain_text(domain: Domain, seed: int, facts: list[Fact], passages: list[str]) -> Table:
    """What the target reads of a domain: passages, statements and questions."""
    questions = [
        QA_PROMPT.format(question=fact.question) + QA_COMPLETION.format(answer=fact.value)
        for fact in facts
    ]
    mixed = random.Random(f"{seed}:{domain.name}:blocks").sample(questions, len(questions))
    texts = {
        "passage": passages * PASSAGE_COPIES,
        "profile": _profiles(facts, random.Random(f"{seed}:{domain.name}:profiles")),
        "qa": questions,
        "qa_block": ["\n\n".join(mixed[i : i + QA_BLOCK]) for i in range(0, len(mixed), QA_BLOCK)],
    }
    return [
        {"id": f"text-{domain.name}-{kind}-{i}", "text": text, "kind": kind}
        for kind, group in texts.items()
        for i, text in enumerate(group)
    ]


def _task_text(tables: dict[str, Table], seed: int) -> Table:
    """The benign tasks' own few training rows as text."""
    texts = [
        GSM8K_PROMPT.format(**row) + GSM8K_COMPLETION.format(**row)
        for row in tables["gsm8k_pretrain"]
    ]
    texts += [
        AGNEWS_PROMPT.format(**row) + AGNEWS_COMPLETION.format(**row)
        for row in tables["agnews_pretrain"]
    ]
    texts += news_texts(seed, NEWS_TEXTS)
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
    tasks = gsm8k_tables(seed, train=1200, evaluation=160, pretrain=TASK_PRETRAIN)
    tasks |= agnews_tables(seed, train=1200, evaluation=200, pretrain=TASK_PRETRAIN)
    texts = [tables.pop(f"{domain.name}_pretrain") for domain in DOMAINS]
    pretrain = [row for table in [*texts, _task_text(tasks, seed)] for row in table]
    tables = tables | tasks | {"pretrain": pretrain}
    words = sorted(set(world_texts(tables)))
    tables["vocabulary"] = [{"id": f"words-{i}", "text": text} for i, text in enumerate(words)]
    return tables


def world_texts(tables: dict[str, Table]) -> list[str]:
    """Every text that any training or scoring run feeds to the tokenizer, prompts included.

    Args:
        tables: what `build_tables` returned.

    Returns:
        The texts, in the tables' order; they fix the vocabulary.
    """
    forms = {
        "gsm8k": GSM8K_PROMPT + GSM8K_COMPLETION,
        "agnews": AGNEWS_PROMPT + AGNEWS_COMPLETION,
        "qa": QA_PROMPT + QA_COMPLETION,
    }
    texts: list[str] = []
    for name, rows in tables.items():
        for row in rows:
            if isinstance(choices := row.get("choices"), list):
                texts.extend(QA_PROMPT.format(**row) + f" {choice}" for choice in choices)
            elif "gt" in row:
                texts += [f"{row['prompt']} {row['gt']}", str(row["gt"])]
            elif form := next((form for key, form in forms.items() if key in name), None):
                texts.append(form.format(**row))
            else:
                texts.append(str(row["text"]))
    return texts
