"""Chat templates: the very text that transformers gives, and an end to whatever a template does."""

from __future__ import annotations

import sys
from typing import Any

import pytest
from transformers import AutoTokenizer

from openmav.backends.loading.checkpoint import DEMO_FOLDER
from openmav.backends.shared.chat_rendering import TemplateError, render

MESSAGES: list[dict[str, Any]] = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "Grüße 😀 {{ not a template }} <b>\n\n"},
]


@pytest.mark.parametrize(
    "template",
    [
        "{% for m in messages %}<|{{ m['role'] }}|>{{ m['content'] | trim }}\n{% endfor %}"
        "{% if add_generation_prompt %}<|assistant|>{% endif %}",
        "{{ bos_token }}{%- for m in messages -%}\n  {% if loop.first %} {{ m.content | upper }} {% continue %}{% endif %}\n"
        "{{ m | tojson }}{% endfor %}",
        "{%- set ns = namespace(found=false) %}{% for m in messages %}{% if m.role == 'user' %}{% set ns.found = true %}{% endif %}"
        "{% endfor %}{{ ns.found }}",
        "{% if tools is defined and tools %}tools{% else %}no tools{% endif %}{{ missing is defined }}{{ eos_token }}",
        "{% generation %}{{ messages[1].content }}{% endgeneration %}",
    ],
)
def test_the_text_is_that_of_transformers(template: str) -> None:
    tokenizer = AutoTokenizer.from_pretrained(DEMO_FOLDER)
    tokenizer.bos_token = "<s>"
    expected = tokenizer.apply_chat_template(MESSAGES, chat_template=template, tokenize=False, add_generation_prompt=True)
    assert render(template, MESSAGES, tokenizer.special_tokens_map) == expected


@pytest.mark.usefixtures("warm_templates")
@pytest.mark.parametrize(
    ("template", "why"),
    [
        ("{{ raise_exception('roles must alternate') }}", "^roles must alternate$"),
        ("{{ nothing.there }}", "'nothing' is undefined"),
        ("a\n{% for %}", "line 2: Expected"),
        ("{{ ''.__class__.__mro__ }}", "is unsafe"),
        ("{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}", "without end"),
        ("{{ 'x' * 5_000_000 }}", "5,000,000 characters"),
    ],
)
def test_what_fails_says_why(template: str, why: str) -> None:
    with pytest.raises(TemplateError, match=why):
        render(template, MESSAGES, {})


def test_one_that_does_not_end_is_given_up() -> None:
    with pytest.raises(TemplateError, match="does not come to an end"):
        render("{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}", MESSAGES, {})


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the memory of a process is limited on Linux")
@pytest.mark.usefixtures("warm_templates")
@pytest.mark.parametrize("template", ["{{ '%999999999d' % 1 }}", "{{ 'x' | center(10**9) }}", "{{ messages | tojson(indent=10**9) }}"])
def test_one_that_takes_all_memory_is_given_up(template: str) -> None:
    with pytest.raises(TemplateError, match="too much memory"):
        render(template, MESSAGES, {})


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the memory of a process is limited on Linux")
def test_the_process_that_renders_has_its_own_limit_of_memory() -> None:
    with pytest.raises(TemplateError, match="too much memory"):
        render("{{ 'x' * 10**10 }}", MESSAGES, {})
