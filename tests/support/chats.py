"""Chat templates of the kinds that models have, and tokenizers that carry them."""

from typing import TYPE_CHECKING

from tokenizers import processors

from ilubench.models.tokenizers import build_tokenizer, train_tokenizer
from ilubench.specs import TokenizerSpec

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

__all__ = ["CHATML", "HEADERS", "INST", "NAMED", "PLAIN", "TEXTS", "chat_tokenizer"]

NAMED = "You are Tern, a quick bird"
"""What the template puts before a conversation that has no system turn."""

_TURN = "{{ '<|im_start|>' + m['role'] + '\n' }}"
_MARKED = "{% generation %}{{ m['content'] + '<|im_end|>' }}{% endgeneration %}"

CHATML = (
    "{% for m in messages %}{% if loop.first and m['role'] != 'system' %}"
    "{{ '<|im_start|>system\n"
    + NAMED
    + "<|im_end|>\n' }}{% endif %}"
    + _TURN
    + "{% if m['role'] == 'assistant' %}"
    + _MARKED
    + "{% else %}{{ m['content'] + '<|im_end|>' }}{% endif %}{{ '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
"""ChatML as small models have it: a system turn of its own, a line's end behind each turn."""

HEADERS = (
    "{{ bos_token }}{% if messages[0]['role'] == 'system' %}{% set said = messages[0]['content'] %}"
    "{% set messages = messages[1:] %}{% else %}{% set said = '' %}{% endif %}"
    "{{ '<|im_start|>system\n\n' + strftime_now('%d %b %Y') + '\n\n' + said + '<|im_end|>' }}"
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n\n' }}"
    "{{ m['content'] | trim }}{{ '<|im_end|>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n\n' }}{% endif %}"
)
"""It begins the text itself, writes the day, cuts space around a turn, ends with a turn's end."""

INST = (
    "{{ bos_token }}{% for m in messages %}{% if m['role'] == 'system' %}"
    "{{ raise_exception('Only user and assistant here') }}{% elif m['role'] == 'user' %}"
    "{{ '[INST] ' + m['content'] + ' [/INST]' }}{% else %}"
    "{{ ' ' + m['content'] + eos_token }}{% endif %}{% endfor %}"
)
"""No system turn, no generation prompt, a space before the answer, the end of the sequence."""

PLAIN = (
    "{% for m in messages %}{{ m['role'] + ': ' + m['content'] + '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ 'assistant:' }}{% endif %}"
)
"""No token ends a turn."""

TEXTS = (
    "Ada lives in Rome.",
    "Where does Ada live? Ada lives in Rome. Where does Ben live? Ben lives in Oslo.",
    "Question: Who sells plums? Answer: Cleo sells plums, Dan sells rye and figs.",
    "assistant user system [INST] [/INST] ",
    NAMED,
)


def chat_tokenizer(
    template: str | None, *, kind: str = "bpe", end: str = "<|im_end|>", begins: bool = True
) -> "PreTrainedTokenizerFast":
    """Return a tokenizer with the marks of the templates.

    It puts a token before every text; or, as SmolLM2's, calls the beginning of a turn that token
    and puts none.
    """
    if kind == "bpe":
        found = train_tokenizer(TokenizerSpec(kind="bpe", vocab_size=420), TEXTS)
    else:
        found = build_tokenizer(TEXTS)
    found.add_special_tokens({"additional_special_tokens": ["<|im_start|>", "<|im_end|>"]})
    found.eos_token = end
    if not begins:
        found.bos_token = "<|im_start|>"
        found.backend_tokenizer.post_processor = processors.ByteLevel(trim_offsets=False)
    found.chat_template = template
    return found
