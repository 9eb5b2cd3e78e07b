"""Models that run in an odd way: what is refused in one line, what a prompt in one piece mends, and no hook that stays behind."""

from __future__ import annotations

import pytest
import torch
import transformers

from backends.tiny_models import tiny_model
from backends.tiny_reference import generated
from openmav.backends.loading import checkpoint
from openmav.backends.transformers import wrap
from openmav.backends.transformers.checks.passes import sample_ids
from openmav.errors import LoadError


@pytest.mark.parametrize("model_type", ["blt"])
def test_a_model_that_raises_on_text_is_refused_in_one_line(model_type: str) -> None:
    with pytest.raises(LoadError) as caught:
        wrap(tiny_model(model_type, torch.float32), None)
    assert "does not run on a few tokens of text" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_model_of_shapes_without_weights_is_refused_in_one_line() -> None:
    with torch.device("meta"):
        model = transformers.AutoModelForCausalLM.from_config(transformers.AutoConfig.from_pretrained(checkpoint.DEMO_FOLDER))
    with pytest.raises(LoadError, match=r"shapes but no weights: '.*' is on torch's meta device; load them with from_pretrained first"):
        wrap(model, None)


@pytest.mark.parametrize("model_type", ["xlnet", "cpmant", "prophetnet", "qwen2_5_omni_thinker"])
def test_a_prompt_is_read_in_one_piece_where_generate_needs_it(model_type: str) -> None:
    model = tiny_model(model_type, torch.float32)
    prompt = sample_ids(model)
    tokens, expected = generated(tiny_model(model_type, torch.float32), prompt, 3)
    backend = wrap(model, None)
    frames = [backend.prefill(prompt, frozenset()), *(backend.decode_one_token(token, frozenset()) for token in tokens[:-1])]
    torch.testing.assert_close(torch.stack([frame.logits for frame in frames]), expected)


@pytest.mark.changes_model  # asked for its rows here, it gets hooks from transformers again
@pytest.mark.parametrize("model_type", ["xglm", "got_ocr2"])
def test_hooks_that_record_outputs_go_and_those_of_the_owner_stay(model_type: str) -> None:
    model = tiny_model(model_type, torch.float32)
    calls: list[int] = []
    model.base_model.register_forward_hook(lambda *_: calls.append(1))
    before = {name: dict(module._forward_hooks) for name, module in model.named_modules()}
    ids = torch.tensor([sample_ids(model)])
    backend = wrap(model, None)
    backend.prefill(ids[0].tolist(), frozenset({"attention.probs"}))
    backend.close()
    assert {name: dict(module._forward_hooks) for name, module in model.named_modules()} == before
    calls.clear()
    with torch.no_grad():
        rows = model(input_ids=ids, output_attentions=True).attentions
    assert len(calls) == 1
    assert len(rows) == 4


def test_a_drift_past_the_window_of_a_dynamic_mask_is_noted() -> None:
    notes = wrap(tiny_model("doge", torch.float32), None).info.notes
    assert any("keep_window_size" in note and "without a cache" in note for note in notes)


def test_a_state_that_only_longer_texts_make_is_kept() -> None:
    model = tiny_model("reformer", torch.float32)
    prompt = (sample_ids(model) * 12)[:150]
    backend = wrap(model, None)
    first = backend.prefill(prompt, frozenset())
    backend.decode_one_token(int(first.logits.argmax()), frozenset())
    assert backend.length == len(prompt) + 1
