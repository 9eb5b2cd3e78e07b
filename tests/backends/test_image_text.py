"""Image-text models on their text side: loaded, with the logits of the whole model; what writes no text from text alone is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from transformers import AutoConfig, AutoModelForImageTextToText, AutoTokenizer

from openmav.backends.base import LoadOptions
from openmav.backends.loading import checkpoint
from openmav.backends.transformers import load, wrap
from openmav.backends.transformers.loading import image_text
from openmav.errors import LoadError

IDS = [5, 9, 60, 33, 71, 12, 30, 44, 7]
TEXT: dict[str, Any] = {
    "vocab_size": 2048,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": 256,
    "bos_token_id": 1,
    "eos_token_id": 0,
    "pad_token_id": 0,
}
EYES = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "image_size": 28, "patch_size": 14}


def saved(kind: str, folder: Path, text: dict[str, Any], vision: dict[str, Any], **more: Any) -> Any:
    """A tiny random model of a kind, in a folder with the demo's tokenizer."""
    config = AutoConfig.for_model(kind, text_config={**TEXT, **text}, vision_config=vision, **more)
    torch.manual_seed(2)
    model = AutoModelForImageTextToText.from_config(config, attn_implementation="eager").eval()
    model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(checkpoint.DEMO_FOLDER).save_pretrained(folder)
    return model


@pytest.mark.parametrize(
    ("kind", "text", "vision", "more", "loaded"),
    [
        ("gemma3", {"model_type": "gemma3_text", "sliding_window": 8}, {"model_type": "siglip_vision_model"}, {}, None),
        ("llava", {"model_type": "qwen2"}, {"model_type": "clip_vision_model", "projection_dim": 16}, {"image_token_index": 2040}, None),
        ("mistral3", {"model_type": "mistral"}, {"model_type": "pixtral", "head_dim": 8}, {"image_token_index": 2040}, None),
        (
            "mllama",
            {"model_type": "mllama_text_model", "cross_attention_layers": [9]},
            {"attention_heads": 2, "num_global_layers": 1, "intermediate_layers_indices": [0], "vision_output_dim": 32},
            {"image_token_index": 2040},
            "MllamaForCausalLM",
        ),
    ],
)
def test_an_image_text_model_runs_on_its_text_side(
    tmp_path: Path, kind: str, text: dict[str, Any], vision: dict[str, Any], more: dict[str, Any], loaded: str | None
) -> None:
    model = saved(kind, tmp_path / "model", text, {**EYES, **vision}, **more)
    backend = load(str(tmp_path / "model"), LoadOptions(dtype="float32"))
    with torch.no_grad():
        own = model(input_ids=torch.tensor([IDS]), use_cache=False).logits[0, -1]
    assert backend.prefill(IDS, frozenset()).logits == pytest.approx(own, rel=1e-4, abs=1e-5)
    assert image_text.TEXT_SIDE in backend.info.notes
    assert not any("not used:" in note for note in backend.info.notes)
    assert type(backend.model).__name__ == (loaded or type(model).__name__)


def test_models_that_need_more_than_text_are_refused() -> None:
    text = {"vocab_size": 99, "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    blip = transformers.BlipForConditionalGeneration(AutoConfig.for_model("blip", text_config=text, vision_config=EYES))
    with pytest.raises(LoadError, match="needs pixel_values beside text"):
        wrap(blip, None)
    t5 = AutoConfig.for_model("t5", vocab_size=99, d_model=16, d_ff=32, d_kv=8, num_layers=1, num_heads=2, decoder_start_token_id=0)
    with pytest.raises(LoadError, match="an encoder with a decoder"):
        wrap(transformers.T5ForConditionalGeneration(t5), None)
