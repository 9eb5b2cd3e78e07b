"""Chat templates as models bring them: the text that transformers writes, or one line; and what a tokenizer puts around a prompt."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoTokenizer, PreTrainedTokenizerBase

import openmav
from openmav.backends.transformers.tokens.tokens import Tokens, add_processor_template
from openmav.errors import UsageError
from openmav.generation.opening import open_session
from openmav.generation.tokenize import notes_on, read_prompt
from openmav.settings import Settings

pytestmark = pytest.mark.usefixtures("warm_templates")
FOLDER = Path(openmav.__file__).parent / "demo" / "model"
TEXT = "How tall is it?"
PARTS = "{% for m in messages %}<{{ m.role }}>{% for part in m.content %}{{ part.text }}{% endfor %}{% endfor %}"
STRICT_PARTS = (
    "{% for m in messages %}{% for part in m.content %}"
    "{% if part.type == 'text' %}{{ 'T:' + part.text }}{% endif %}{% endfor %}{% endfor %}"
)


@pytest.fixture
def tokenizer() -> PreTrainedTokenizerBase:
    return AutoTokenizer.from_pretrained(FOLDER)


def written(tokenizer: Any, template: Any, chat: bool | str = True, text: str = TEXT) -> str:
    tokenizer.chat_template = template
    tokens = Tokens(tokenizer)
    return tokens.decode(tokens.encode(text, chat))


@pytest.mark.parametrize(
    ("template", "expected"),
    [
        ("U: {{ messages[0]['content'] }}{% if add_generation_prompt %} A:{% endif %}", f"U: {TEXT} A:"),
        ("{{ bos_token }}{{ messages[0]['content'] | trim }}", f"<|endoftext|>{TEXT}"),
        ("{% for m in messages %}{{ m['content'] | upper }}{% endfor %}", TEXT.upper()),
        ({"default": "D {{ messages[0].content }}", "rag": "R"}, f"D {TEXT}"),
        (PARTS, f"<user>{TEXT}"),
        (STRICT_PARTS, f"T:{TEXT}"),
        ("{{ messages[0].content[0].text }}", TEXT),
    ],
)
def test_the_right_text(tokenizer: Any, template: Any, expected: str) -> None:
    tokenizer.bos_token = "<|endoftext|>"
    assert written(tokenizer, template) == expected


def test_a_template_by_its_name(tokenizer: Any) -> None:
    named = {"rag": "R {{ messages[0].content }}", "tool_use": "T {{ messages[0].content }}"}
    assert written(tokenizer, named, "tool_use") == f"T {TEXT}"
    assert written(tokenizer, "{{ messages[0].content }}", "default") == TEXT
    for chat, said in ((True, "--chat-template: rag, tool_use"), ("other", "Known: rag, tool_use")):
        with pytest.raises(UsageError, match=said):
            written(tokenizer, named, chat)


@pytest.mark.parametrize(
    ("template", "said"),
    [
        ("{{ raise_exception('Roles must\n\x1b[31m alternate') }}", "Roles must [31m alternate"),
        ("{% for m in messages %}{{ m.content }", "line 1: "),
        ("a\n{% if %}", "line 2: "),
        ("{{ today() }}", "'today' is undefined"),
        ("{{ messages[0].content + 1 }}", "can't be used"),
        ("{{ messages[5].content.x }}", "can't be used"),
        ("{% for i in range(10 ** 9) %}{{ i }}{% endfor %}", "can't be used"),
        ("{{ ''.__class__.__mro__ }}", "can't be used"),
        ("{% if false %}x{% endif %}", "writes nothing"),
        ("  \n ", "writes nothing"),
        (None, "no chat template"),
        ("", "no chat template"),
        ({}, "no chat template"),
    ],
)
def test_what_fails_is_one_line(tokenizer: Any, template: Any, said: str) -> None:
    with pytest.raises(UsageError) as error:
        written(tokenizer, template)
    assert said in str(error.value)
    assert str(error.value).isprintable()
    assert len(str(error.value)) < 400


def test_a_processors_template_is_taken_where_the_tokenizer_has_none(tokenizer: Any, tmp_path: Path) -> None:
    (tmp_path / "chat_template.json").write_text(json.dumps({"chat_template": "P {{ messages[0].content[0].text }}"}), encoding="utf-8")
    tokenizer.chat_template = None
    add_processor_template(tokenizer, str(tmp_path))
    assert written(tokenizer, tokenizer.chat_template) == f"P {TEXT}"
    tokenizer.chat_template = "own"
    add_processor_template(tokenizer, str(tmp_path))
    assert tokenizer.chat_template == "own"
    for text in ("{", "[]", '{"chat_template": 3}'):
        (tmp_path / "chat_template.json").write_text(text, encoding="utf-8")
        tokenizer.chat_template = None
        add_processor_template(tokenizer, str(tmp_path))
        assert tokenizer.chat_template is None


@pytest.fixture
def around(tmp_path: Path) -> Any:
    """A backend of the bundled model whose tokenizer puts tokens around a text."""
    import shutil

    def build(before: str, after: str) -> Any:
        folder = tmp_path / "model"
        shutil.copytree(FOLDER, folder, dirs_exist_ok=True)
        made = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
        ids = {token["content"]: token["id"] for token in made["added_tokens"]}
        pieces = [[{"SpecialToken": {"id": token, "type_id": 0}}] * bool(token) for token in (before, after)]
        one = [*pieces[0], {"Sequence": {"id": "A", "type_id": 0}}, *pieces[1]]
        known = {token: {"id": token, "ids": [ids[token]], "tokens": [token]} for token in (before, after) if token}
        two = [{"Sequence": {"id": name, "type_id": 0}} for name in "AB"]
        made["post_processor"] = {"type": "TemplateProcessing", "single": one, "pair": two, "special_tokens": known}
        (folder / "tokenizer.json").write_text(json.dumps(made), encoding="utf-8")
        return open_session(Settings(str(folder), TEXT, max_new_tokens=2)).backend

    return build


END = "<|endoftext|>"


def test_an_end_after_the_prompt_is_fed_and_noted(around: Any) -> None:
    backend = around("", END)
    settings = Settings("x", TEXT)
    prompt = read_prompt(backend, settings)
    assert prompt.tokens[-1] == END
    assert prompt.token_ids == (*backend.tokens.tokenizer(TEXT, add_special_tokens=False)["input_ids"], 0)
    assert [note for note in notes_on(prompt, backend) if "the tokenizer puts the end token" in note]
    backend.tokens.tokenizer.chat_template = "{{ messages[0].content }}" + END
    chat = read_prompt(backend, Settings("x", TEXT, chat=True))
    assert chat.token_ids == prompt.token_ids, "not twice"
    assert any("the chat template ends the prompt" in note for note in notes_on(chat, backend, True))


def test_a_text_that_ends_so_itself_and_one_that_does_not(around: Any) -> None:
    backend = around("", "")
    said = read_prompt(backend, Settings("x", TEXT + END))
    assert any(note.startswith(f"the prompt ends with the end token {END}") for note in notes_on(said, backend))
    assert notes_on(read_prompt(backend, Settings("x", TEXT)), backend) == []


def test_a_template_that_writes_the_start_gets_no_second_one(around: Any) -> None:
    backend = around(END, "")
    backend.tokens.tokenizer.chat_template = END + "{{ messages[0].content }}"
    prompt = read_prompt(backend, Settings("x", TEXT, chat=True))
    assert prompt.token_ids[0] == 0
    assert prompt.token_ids[1] != 0
    assert notes_on(prompt, backend, True) == []
    twice = read_prompt(backend, Settings("x", END + TEXT))
    assert any("twice" in note for note in notes_on(twice, backend))
