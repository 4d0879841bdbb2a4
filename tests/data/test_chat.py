"""Training text and prompts as a model's own chat template writes them."""

import json
from collections.abc import Mapping, Sequence
from datetime import date
from typing import TYPE_CHECKING, Any

import pytest
from chats import CHATML, HEADERS, INST, NAMED, PLAIN, chat_tokenizer

from ilubench.data.batches import encode_pair, tokenize_roles
from ilubench.data.chat import chat_turns, closing_ids, encode_turns, render_chat, render_turns
from ilubench.data.rows import Tables
from ilubench.errors import DataError, ModelError
from ilubench.interfaces import Chat
from ilubench.specs import DataSource

if TYPE_CHECKING:
    from pathlib import Path

    from transformers import PreTrainedTokenizerBase

ASKED, ANSWER = "Where does Ada live?", " Ada lives in Rome."
TODAY = DataSource(path="x").today


def chat(system: str = "", today: date = TODAY) -> Chat:
    return Chat("facts", system, today)


def by_transformers(
    tokenizer: "PreTrainedTokenizerBase", turns: Sequence[tuple[str, str]], **how: Any
) -> Any:
    messages = [{"role": role, "content": content} for role, content in turns]
    return tokenizer.apply_chat_template(messages, return_dict=True, **how)


@pytest.mark.parametrize("kind", ["bpe", "word"])
@pytest.mark.parametrize("system", ["", "You sell plums."])
def test_ids_and_mask_are_those_of_transformers(kind: str, system: str) -> None:
    tokenizer = chat_tokenizer(CHATML, kind=kind)
    turns = [("system", system)] * bool(system) + [("user", ASKED)]
    whole = [*turns, ("assistant", ANSWER.strip())]
    expected = by_transformers(tokenizer, whole, return_assistant_tokens_mask=True)
    ids, mask = encode_pair(tokenizer, ASKED, ANSWER, chat(system))
    assert ids == expected["input_ids"]
    assert mask == [bool(target) for target in expected["assistant_masks"]]
    learned = [token for token, target in zip(ids, mask, strict=True) if target]
    assert tokenizer.decode(learned) == "Ada lives in Rome.<|im_end|>"
    prompt = by_transformers(tokenizer, turns, add_generation_prompt=True)["input_ids"]
    assert ids[: mask.index(True)] == prompt
    assert encode_turns(tokenizer, chat_turns(ASKED, chat(system)), chat(system)) == prompt
    assert (NAMED in tokenizer.decode(ids)) == (not system)


LEARNED = {
    CHATML: "Ada lives in Rome.<|im_end|>",
    HEADERS: "Ada lives in Rome.<|im_end|>",
    INST: " Ada lives in Rome.</s>",
    PLAIN: " Ada lives in Rome.\n</s>",
}


@pytest.mark.parametrize("template", LEARNED)
def test_the_answer_is_learned_and_what_ends_it(template: str) -> None:
    ends = "</s>" if template in (INST, PLAIN) else "<|im_end|>"
    tokenizer = chat_tokenizer(template, end=ends)
    now = date.today()  # noqa: DTZ011 - the day that transformers has a template write
    ids, mask = encode_pair(tokenizer, ASKED, ANSWER, chat("", now))
    learned = [token for token, target in zip(ids, mask, strict=True) if target]
    assert tokenizer.decode(learned) == LEARNED[template]
    whole = by_transformers(tokenizer, [("user", ASKED), ("assistant", ANSWER.strip())])
    appended = [tokenizer.eos_token_id] if template == PLAIN else []
    assert ids == whole["input_ids"] + appended
    for name in ("bos_token_id", "eos_token_id"):
        number = getattr(tokenizer, name)
        turns_end = number == tokenizer.convert_tokens_to_ids("<|im_end|>")
        assert ids.count(number) <= (3 if turns_end else 1), "none is doubled"
    assert closing_ids(tokenizer, chat()) == (learned[-1],)


def test_the_day_is_the_sources() -> None:
    tokenizer = chat_tokenizer(HEADERS)
    text = render_chat(tokenizer, ASKED, ANSWER, chat("", date(2025, 4, 10)))
    assert "10 Apr 2025" in text.prompt
    assert "26 Jul 2024" in render_chat(tokenizer, ASKED, ANSWER, chat()).prompt
    today = by_transformers(tokenizer, [("user", ASKED)], tokenize=False)
    assert date.today().strftime("%d %b %Y") in today  # noqa: DTZ011 - others have their clock back


def test_a_thinking_template_answers_at_once() -> None:
    thinking = CHATML.replace(
        "assistant\n' }}{% endif %}",
        "assistant\n' }}{% if enable_thinking is not defined or enable_thinking %}{{ '<think>' }}"
        "{% endif %}{% endif %}",
    )
    text = render_chat(chat_tokenizer(thinking), ASKED, ANSWER, chat())
    assert text.prompt.endswith("assistant\n")


def roles(folder: "Path", rows: Sequence[Mapping[str, str]], **source: Any) -> Tables:
    file = folder / "rows.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    told = {"prompt": "{q}", "completion": " {a}", "path": str(file), **source}
    return Tables(
        {"facts": DataSource.model_validate(told)}, {}, lambda _: pytest.fail("none is made")
    )


def test_roles_become_examples(tmp_path: "Path") -> None:
    rows = [{"q": ASKED, "a": "Rome."}, {"q": "Who sells plums?", "a": "Cleo and Dan."}]
    tokenizer = chat_tokenizer(CHATML)
    tables = roles(tmp_path, rows, chat=True, system="You sell plums.")
    found = tokenize_roles(tables, ["facts"], tokenizer, 256)
    expected = [encode_pair(tokenizer, row["q"], row["a"], chat("You sell plums.")) for row in rows]
    assert [(list(e.input_ids), list(e.loss_mask)) for e in found] == expected
    for overlong, parts in (("truncate", 2), ("windows", 4)):
        tables = roles(tmp_path, rows, chat=True, overlong=overlong)
        length = max(len(ids) for ids, _ in expected) - 3
        assert len(tokenize_roles(tables, ["facts"], tokenizer, length)) in (2, parts)
    prints = {
        json.dumps(roles(tmp_path, rows, **how).fingerprint("facts"), sort_keys=True)
        for how in ({}, {"chat": True}, {"chat": True, "system": "s"}, {"chat": False})
    }
    assert len(prints) == 3, "a source that says nothing has the key that it had"


def spoiled(template: str, old: str, new: str) -> str:
    assert old in template
    return template.replace(old, new)


BAD: dict[str, tuple[str | None, str, str]] = {
    "none": (None, "", "has no chat template; leave data.facts.chat out"),
    "raises": (
        "{{ raise_exception('no talk') }}",
        "",
        r"cannot be filled \(no talk\); mend its chat_template.jinja, or leave data.facts.chat out",
    ),
    "no jinja": ("{% for m in messages %}", "", r"cannot be filled \("),
    "divides": ("{{ 1 / 0 }}", "", r"cannot be filled \(division by zero\)"),
    "unknown": ("{{ messages[0].content.no.such }}", "", r"cannot be filled \("),
    "unsafe": ("{{ messages.__class__.__mro__ }}", "", r"cannot be filled \("),
    "no system": (
        INST,
        "Be brief.",
        r"\(Only user and assistant here\); where it takes no system turn, leave data.facts.system",
    ),
    "drops the system turn": (
        spoiled(CHATML, "{% for m in messages %}", "{% for m in messages[-1:] %}"),
        "Be brief.",
        "does not write the system's turn as it is given; leave data.facts.system out",
    ),
    "drops the prompt": (
        spoiled(PLAIN, "messages %}", "messages if m['role'] != 'user' %}"),
        "",
        "does not write the user's turn as it is given; mend",
    ),
    "changes the prompt": (
        spoiled(PLAIN, "m['content']", "m['content'] | upper"),
        "",
        "does not write the user's turn as it is given; mend",
    ),
    "drops the answer": (
        spoiled(PLAIN, "messages %}", "messages if m['role'] != 'assistant' %}"),
        "",
        "writes the prompt otherwise when an answer follows it; mend",
    ),
    "changes the answer": (
        spoiled(INST, "' ' + m['content']", "' ' + m['content'] | upper"),
        "",
        "does not write the assistant's turn as it is given, right behind the prompt; mend",
    ),
    "another prefix": (
        "{{ messages | length }}" + PLAIN,
        "",
        "writes the prompt otherwise when an answer follows it; mend",
    ),
    "other words before the answer": (
        spoiled(INST, "' ' + m", "' I think: ' + m"),
        "",
        "does not write the assistant's turn as it is given, right behind the prompt; mend",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_a_template_that_cannot_be_used(name: str) -> None:
    template, system, problem = BAD[name]
    tokenizer = chat_tokenizer(template)
    with pytest.raises(ModelError, match=problem) as caught:
        encode_pair(tokenizer, ASKED, ANSWER, chat(system))
    assert str(caught.value).startswith("data.facts.chat: ")
    assert "\n" not in str(caught.value)


BEYOND = {
    "no end": (
        "{% for a in range(90000) %}{% for b in range(90000) %}{% endfor %}{% endfor %}",
        "does not end within 2 seconds",
    ),
    "much text": (
        "{% for a in range(90000) %}{{ 'a great deal of text' }}{% endfor %}",
        "writes more than 1,048,576 letters about a few words",
    ),
    "much text at once": ("{{ messages[0].content * 2000000 }}", "writes more than 1,048,576"),
    "much memory": ("{% set a = messages[0].content * 9999999999 %}", "needs more than 1 GB"),
    "no end where much is said": (
        "{% if messages[-1].content | length > 99 and enable_thinking is defined %}"
        "{% for a in range(90000) %}{% for b in range(90000) %}{% endfor %}{% endfor %}{% endif %}",
        "does not end within 2 seconds",
    ),
    "much text in long talks": (
        "{% if messages | length > 5 %}{{ messages[0].content * 9999 }}{% endif %}",
        "writes more than 1,048,576 letters about a few words",
    ),
    "a large number": ("{{ (9 ** 99999999) % 7 }}", "does not end within 2 seconds"),
}


SLOW = [pytest.mark.slow]


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(n, marks=SLOW if n in ("a large number", "no end where much is said") else [])
        for n in BEYOND
    ],
)
def test_a_template_beyond_reason(name: str) -> None:
    """None of them may hang the process that reads the data."""
    template, problem = BEYOND[name]
    with pytest.raises(ModelError, match=f"{problem}.*; mend its chat_template.jinja"):
        encode_pair(chat_tokenizer(CHATML + template), ASKED, ANSWER, chat())


def test_a_tokenizer_without_an_end() -> None:
    tokenizer = chat_tokenizer(CHATML)
    tokenizer.eos_token = None
    with pytest.raises(ModelError, match=r"has no end-of-sequence token.* set eos_token in its"):
        encode_pair(tokenizer, ASKED, ANSWER, chat())


def test_several_templates() -> None:
    tokenizer = chat_tokenizer(CHATML)
    expected = encode_pair(tokenizer, ASKED, ANSWER, chat())
    tokenizer.chat_template = {"default": CHATML, "tool_use": PLAIN}
    assert encode_pair(tokenizer, ASKED, ANSWER, chat()) == expected
    tokenizer.chat_template = {"tool_use": PLAIN}
    with pytest.raises(ModelError, match="has no chat template"):
        encode_pair(tokenizer, ASKED, ANSWER, chat())


@pytest.mark.parametrize(
    ("asked", "answer", "whose"), [(" ", "x", "user"), ("x", " ", "assistant")]
)
def test_a_blank_turn(asked: str, answer: str, whose: str) -> None:
    with pytest.raises(DataError, match=f"data.facts.chat: the {whose}'s turn is blank"):
        encode_pair(chat_tokenizer(CHATML), asked, answer, chat())


@pytest.mark.parametrize("given", [{"system": "x"}, {"today": "2025-04-10"}])
def test_a_system_turn_needs_a_chat(given: dict[str, str]) -> None:
    with pytest.raises(ValueError, match="there is no chat; set chat to true"):
        DataSource.model_validate({"path": "x", **given})
    assert DataSource.model_validate({"path": "x", "chat": True, **given}).chat
    assert not {"chat", "system", "today"} & DataSource(path="x").model_dump().keys()


def test_an_open_answer_is_gone_on_with() -> None:
    turns = [*chat_turns(ASKED, chat()), {"role": "assistant", "content": "Ada lives"}]
    text = render_turns(chat_tokenizer(CHATML), turns, chat())
    assert text.endswith("<|im_start|>assistant\nAda lives")
