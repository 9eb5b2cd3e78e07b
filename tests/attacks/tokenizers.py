"""Tokenizers that multiply text, blow up, panic or lie; chat templates that loop, recurse, multiply or raise."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from attacks.base import Attack
from attacks.folders import ESCAPE
from attacks.models import RUN, with_file, with_json

CHAT = (*RUN, "--chat")
LONG = (*RUN[:-1], "a" * 60 + "!")


def tokenizers() -> Iterator[Attack]:
    def put(**parts: Any) -> Any:
        return with_json("tokenizer.json", lambda t: t.update(parts))

    split = {"type": "Split", "invert": False, "behavior": "Isolated"}
    grow = {"type": "Sequence", "normalizers": [{"type": "Replace", "pattern": {"String": "a"}, "content": "a" * 100}] * 5}
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    for name, args, make in (
        ("a normaliser that multiplies", (*RUN[:-1], "aaaaaaaa"), put(normalizer=grow)),
        ("a normaliser that prepends", RUN, put(normalizer={"type": "Prepend", "prepend": "x" * 10_000_000})),
        ("a normaliser that gives nothing", RUN, put(normalizer={"type": "Replace", "pattern": {"Regex": "."}, "content": ""})),
        ("an expression that blows up", LONG, put(pre_tokenizer={**split, "pattern": {"Regex": "(a+)+$"}})),
        ("an expression with back references", LONG, put(pre_tokenizer={**split, "pattern": {"Regex": "(a*)*\\1b"}})),
        ("a wrong expression", RUN, put(pre_tokenizer={**split, "pattern": {"Regex": "("}})),
        ("no pre-tokenizer", RUN, put(pre_tokenizer=None)),
        ("no decoder", RUN, put(decoder=None)),
        ("a strange decoder", RUN, put(decoder={"type": ESCAPE})),
        (
            "a decoder that multiplies",
            RUN,
            put(
                decoder={
                    "type": "Sequence",
                    "decoders": [byte_level, {"type": "Replace", "pattern": {"Regex": "."}, "content": "y" * 100_000}],
                }
            ),
        ),
        (
            "a template processor without its tokens",
            RUN,
            put(
                post_processor={
                    "type": "TemplateProcessing",
                    "single": [{"SpecialToken": {"id": "[X]", "type_id": 0}}],
                    "pair": [],
                    "special_tokens": {},
                }
            ),
        ),
        (
            "a template processor with foreign ids",
            RUN,
            put(
                post_processor={
                    "type": "TemplateProcessing",
                    "single": [{"SpecialToken": {"id": "[X]", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
                    "pair": [],
                    "special_tokens": {"[X]": {"id": "[X]", "ids": [4_000_000_000], "tokens": ["[X]"]}},
                }
            ),
        ),
        ("truncation to 0", RUN, put(truncation={"direction": "Right", "max_length": 0, "strategy": "LongestFirst", "stride": 0})),
        (
            "truncation with a stride too long",
            RUN,
            put(truncation={"direction": "Right", "max_length": 2, "strategy": "LongestFirst", "stride": 5}),
        ),
        (
            "padding to a billion",
            RUN,
            put(
                padding={
                    "strategy": {"Fixed": 10**9},
                    "direction": "Right",
                    "pad_to_multiple_of": None,
                    "pad_id": 0,
                    "pad_type_id": 0,
                    "pad_token": "<s>",
                }
            ),
        ),
        (
            "added tokens with foreign ids",
            RUN,
            put(
                added_tokens=[
                    {
                        "id": 10**9,
                        "content": "Hi",
                        "single_word": False,
                        "lstrip": False,
                        "rstrip": False,
                        "normalized": False,
                        "special": False,
                    }
                ]
            ),
        ),
        (
            "an added token that is empty",
            RUN,
            put(
                added_tokens=[
                    {"id": 1, "content": "", "single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
                ]
            ),
        ),
        (
            "an added token that is an escape",
            (*RUN[:-1], ESCAPE[:10]),
            put(
                added_tokens=[
                    {
                        "id": 298,
                        "content": ESCAPE[:10],
                        "single_word": False,
                        "lstrip": False,
                        "rstrip": False,
                        "normalized": False,
                        "special": True,
                    }
                ]
            ),
        ),
        (
            "ids beyond the vocabulary",
            RUN,
            with_json("tokenizer.json", lambda t: t["model"].update(vocab={k: v + 10_000 for k, v in t["model"]["vocab"].items()})),
        ),
        (
            "ids that are negative",
            RUN,
            with_json("tokenizer.json", lambda t: t["model"].update(vocab={k: -v for k, v in t["model"]["vocab"].items()})),
        ),
        ("one id for all", RUN, with_json("tokenizer.json", lambda t: t["model"].update(vocab=dict.fromkeys(t["model"]["vocab"], 5)))),
        ("an empty vocabulary", RUN, with_json("tokenizer.json", lambda t: t["model"].update(vocab={}, merges=[]))),
        ("merges of tokens that are not there", RUN, with_json("tokenizer.json", lambda t: t["model"].update(merges=[["x", "yz"]]))),
        ("a model of another kind", RUN, with_json("tokenizer.json", lambda t: t.update(model={"type": ESCAPE}))),
        (
            "a word level model without unknown",
            RUN,
            with_json("tokenizer.json", lambda t: t.update(model={"type": "WordLevel", "vocab": {"x": 0}, "unk_token": "[UNK]"})),
        ),
        (
            "a unigram model without scores",
            RUN,
            with_json("tokenizer.json", lambda t: t.update(model={"type": "Unigram", "unk_id": 9, "vocab": []})),
        ),
        (
            "a word piece model with an empty prefix",
            RUN,
            with_json(
                "tokenizer.json",
                lambda t: t.update(
                    model={
                        "type": "WordPiece",
                        "vocab": {"[UNK]": 0, "H": 1},
                        "unk_token": "[UNK]",
                        "continuing_subword_prefix": "",
                        "max_input_chars_per_word": 0,
                    }
                ),
            ),
        ),
    ):
        yield Attack(f"tokenizer: {name}", args, make)
    for name, text in (
        ("no JSON", "{"),
        ("empty", ""),
        ("a list", "[]"),
        ("nested deeply", "[" * 100_000),
        ("not UTF-8", b"\xff\xfe"),
        ("zeros", b"\0" * 99),
        ("an escape", ESCAPE),
    ):
        yield Attack(f"tokenizer.json is {name}", RUN, with_file("tokenizer.json", text))
    yield Attack("tokenizer.json is not there", RUN, with_file("tokenizer.json", None))
    for key, value in (
        ("tokenizer_class", ESCAPE),
        ("tokenizer_class", "BertTokenizer"),
        ("tokenizer_class", 3),
        ("tokenizer_class", "GPT2Tokenizer"),
        ("model_max_length", "x"),
        ("model_max_length", 2),
        ("bos_token", 5),
        ("eos_token", {"content": ESCAPE}),
        ("eos_token", "never seen"),
        ("extra_special_tokens", {"a": ESCAPE}),
        ("auto_map", {"AutoTokenizer": ["evil.T", None]}),
        ("padding_side", "up"),
        ("clean_up_tokenization_spaces", True),
        ("added_tokens_decoder", {"x": {}}),
        ("added_tokens_decoder", {"-5": {"content": "q"}}),
        ("additional_special_tokens", ESCAPE),
    ):
        yield Attack(
            f"tokenizer_config {key} = {json.dumps(value)[:30]}",
            RUN,
            with_json("tokenizer_config.json", lambda t, k=key, v=value: t.update({k: v})),
        )


def templates() -> Iterator[Attack]:
    for name, text in (
        ("loops for ever", "{% for a in range(99999) %}{% for b in range(99999) %}x{% endfor %}{% endfor %}"),
        ("multiplies strings", "{{ 'x' * 10**10 }}"),
        (
            "multiplies in steps",
            "{% set ns = namespace(s='x' * 1000) %}{% for i in range(40) %}{% set ns.s = ns.s ~ ns.s %}{% endfor %}{{ ns.s }}",
        ),
        ("powers", "{{ 9**9**9 }}"),
        ("formats widely", "{{ '%999999999d' % 1 }}"),
        ("formats widely another way", "{{ '{:>999999999}'.format(1) }}"),
        ("recurses", "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}"),
        ("joins a long range", "{{ range(10**9) | list | length }}"),
        ("centres", "{{ 'x' | center(10**9) }}"),
        ("indents", "{{ messages | tojson(indent=10**8) }}"),
        ("raises", "{{ raise_exception('" + "no \\x1b]0;x\\x07' ) }}"),
        ("raises an escape", "{{ raise_exception('\x1b]52;c;aGk=\x07') }}"),
        ("is undefined", "{{ nothing.there.at.all }}"),
        ("calls what is no function", "{{ messages() }}"),
        ("divides by zero", "{{ 1 // 0 }}"),
        ("does not parse", "{% for %}"),
        ("does not end", "{% if true %}x"),
        ("includes a file", "{% include '/etc/passwd' %}"),
        ("imports", "{% import 'os' as o %}{{ o.system('touch x') }}"),
        ("reaches for classes", "{{ ''.__class__.__mro__[1].__subclasses__() }}"),
        ("reaches by attr", "{{ (cycler | attr('__init__')).__globals__ }}"),
        ("changes the messages", "{{ messages.append(1) }}{{ messages }}"),
        ("is empty", ""),
        ("gives nothing", "{# nothing #}"),
        ("gives spaces", "   "),
        ("gives an escape", ESCAPE),
        ("is a number", 3),
        ("is a list", [1, 2]),
        ("is a list of pairs", [{"name": "a", "template": "x"}]),
        ("is a dict", {"default": "x"}),
        ("counts on tools", "{{ tools[0].name }}"),
        ("wants a system message", "{{ raise_exception('system first') if messages[0].role != 'system' else 'x' }}"),
        ("asks for the time", "{{ strftime_now('%Y' * 100000) }}"),
        ("is named by a number", [{"name": 3, "template": "x"}, {"name": 4, "template": None}]),
        ("is named by an escape", [{"name": ESCAPE, "template": "x"}]),
        ("is true", True),
        ("is a dict of numbers", {"default": 3}),
        ("gives half a character", "{{ '\\ud800' }}"),
        ("gives zeros", "{{ '\\x00' * 10 }}x"),
        ("holds itself", "{% set n = namespace() %}{% set n.n = n %}{{ n }}"),
        ("is a block in itself", "{% block a %}{{ self.a() }}{% endblock %}"),
        ("nests conditions deeply", "{% if 1 %}" * 2000 + "x" + "{% endif %}" * 2000),
        ("multiplies a list", "{{ ([0] * 10**9) | length }}"),
        ("raises nothing", "{{ raise_exception() }}"),
        ("raises megabytes", "{{ raise_exception('x' * 10**7) }}"),
        ("prints a huge number", "{{ 10**20000 }}"),
        ("breaks out of a loop", "{% for m in messages %}{% break %}{% endfor %}x"),
    ):
        yield Attack(f"template {name}", CHAT, _templated(text))


def _templated(text: object) -> Any:
    from attacks.models import sound

    def make(folder: Any) -> None:
        model = sound(folder)
        (model / "chat_template.jinja").unlink(missing_ok=True)
        file = model / "tokenizer_config.json"
        data = json.loads(file.read_text(encoding="utf-8"))
        file.write_text(json.dumps({**data, "chat_template": text}), encoding="utf-8")

    return make


def attacks() -> Iterator[Attack]:
    yield from tokenizers()
    yield from templates()
