"""Loading a model by name, folder, GGUF file or "demo", and saying in one line why it can't be done."""

from __future__ import annotations

import logging
import shutil
import tempfile
import uuid
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import transformers
from huggingface_hub import errors as hub
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, PreTrainedModel
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

from openmav.backends._base import LoadOptions, Progress
from openmav.backends._hf import naming, placing, quantised
from openmav.errors import LoadError


def load(name: str, options: LoadOptions, progress: Progress | None) -> tuple[PreTrainedModel, Any, tuple[str, ...]]:
    """(model, tokenizer, notes about the weights), the model in evaluation mode on its device or devices.

    Raises LoadError.
    """
    tell = progress or (lambda _text, _share: None)
    transformers.utils.logging.disable_progress_bar()
    logging.getLogger("transformers").setLevel(logging.ERROR)
    if options.threads:
        torch.set_num_threads(options.threads)
    device = placing.pick_device(options.device)
    source = naming.find(name)
    if source.gguf is not None:
        quantised.need_packages(name, "gguf")
    common: dict[str, Any] = {"trust_remote_code": options.trust_remote_code, **source.arguments}
    with _explained(name):
        tell("reading the configuration", None)
        config = AutoConfig.from_pretrained(source.place, **common)
        _check_causal(name, config, options)
        how = quantised.method(config)
        if how is not None:
            quantised.need_packages(name, how)
        dtype = placing.pick_dtype(options.dtype, device, config)
        tell("loading the tokenizer", None)
        tokenizer = _tokenizer(name, source.place, common)
        tell(f"loading the weights as {str(dtype).removeprefix('torch.')}", None)
        with _offload_folder() as folder:
            placed = placing.device_map(options.device, device, how is not None, str(folder))
            model, found = AutoModelForCausalLM.from_pretrained(
                source.place,
                config=config,
                dtype=dtype,
                attn_implementation="eager",
                output_loading_info=True,
                **_weights(source, options),
                **placed,
                **common,
            )
            if folder.exists():
                weakref.finalize(model, shutil.rmtree, folder, ignore_errors=True)
        _check_complete(name, found)
        if not placed:
            tell(f"moving the model to {device}", None)
            model = model.to(device)
        return model.eval(), tokenizer, quantised.notes(model.config, source.gguf)


def _weights(source: naming.Source, options: LoadOptions) -> dict[str, Any]:
    """Safetensors only. A GGUF file is unpacked: computing on its blocks takes code from the hub, which has to be allowed."""
    if source.gguf is None:
        return {"use_safetensors": True}
    unpack = getattr(transformers, "GgufConfig", None)
    return {} if unpack is None or options.trust_remote_code else {"quantization_config": unpack(dequantize=True)}


@contextmanager
def _offload_folder() -> Iterator[Path]:
    """Where accelerate may put weights that fit nowhere else; it makes the folder if it needs one, and an error takes it away."""
    folder = Path(tempfile.gettempdir()) / f"mav-offload-{uuid.uuid4().hex}"
    try:
        yield folder
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise


def use_attention(model: PreTrainedModel, name: str) -> None:
    """Switch a model's attention; a model that has its own way keeps it."""
    if model.config._attn_implementation != name:
        model.set_attn_implementation(name)


def _check_causal(name: str, config: Any, options: LoadOptions) -> None:
    if options.trust_remote_code and getattr(config, "auto_map", None):
        return
    known = config.model_type in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES
    named = getattr(config, "architectures", None) or []
    causal = set(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.values())
    if not known or (named and not causal & set(named)) or config.is_encoder_decoder:
        what = ", ".join(named) or config.model_type
        raise LoadError(f"{name} is not a causal language model ({what}); mav shows models that write the next token")


def _check_complete(name: str, found: dict[str, Any]) -> None:
    """Weights that are not in the files would be random numbers, and nobody would know."""
    missing = sorted(found.get("missing_keys", ()))
    if missing:
        raise LoadError(f"{name} lacks {len(missing)} weights ({missing[0]}, ...); the download or the export is incomplete")
    wrong = found.get("mismatched_keys") or ()
    if wrong:
        raise LoadError(f"{name} has {len(wrong)} weights of another shape than its config.json says; the two do not belong together")


def _tokenizer(name: str, place: str, common: dict[str, Any]) -> Any:
    try:
        tokenizer = AutoTokenizer.from_pretrained(place, **common)
    except (OSError, ValueError, KeyError, TypeError) as error:
        if _is_network(error):
            raise
        raise LoadError(f"{name} has no tokenizer that transformers can load ({_first_line(error)})") from error
    if len(tokenizer) == 0:
        raise LoadError(f"{name} has no tokenizer: there is no vocabulary beside the model")
    return tokenizer


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _is_network(error: BaseException) -> bool:
    kinds = (hub.LocalEntryNotFoundError, hub.OfflineModeIsEnabled, ConnectionError, TimeoutError)
    return any(isinstance(e, kinds) or type(e).__name__ in ("ConnectError", "ConnectTimeout", "ReadTimeout") for e in _chain(error))


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return lines[0].strip() if lines else type(error).__name__


@contextmanager
def _explained(name: str) -> Iterator[None]:
    """Turn what the libraries raise into a LoadError that says what to do."""
    try:
        yield
    except LoadError:
        raise
    except Exception as error:
        raise LoadError(_explain(name, error)) from error


def _explain(name: str, error: Exception) -> str:
    chain = list(_chain(error))
    text = " ".join(str(e) for e in chain)
    if any(isinstance(e, hub.GatedRepoError) for e in chain):
        return f"{name} is gated: ask for access on its page on the Hugging Face hub, then run `hf auth login`"
    if any(isinstance(e, hub.RepositoryNotFoundError) for e in chain):
        return f"the Hugging Face hub knows no model {name}; check the name, or run `hf auth login` if it is private"
    if _is_network(error):
        return f"{name} is not on this machine and the Hugging Face hub can't be reached; check the network, or give a folder"
    if any(type(e).__name__ == "SafetensorError" for e in chain) or quantised.damaged(name, text):
        return f"the weights of {name} are damaged or incomplete ({_first_line(chain[0])}); download them again"
    if any(isinstance(e, MemoryError | torch.OutOfMemoryError) for e in chain) or "not enough memory" in text or "can't allocate" in text:
        return f"{name} does not fit into memory; try --dtype bfloat16, a smaller model, or another --device"
    if "safetensors" in text and "does not appear to have" in text:
        return f"{name} has no safetensors weights; pickle files can run code, so mav does not load them"
    if "trust_remote_code" in text:
        return f"{name} brings its own code; read it, then allow it with --trust-remote-code"
    if isinstance(error, ImportError):
        return f"{name} needs a package that is not installed: {_first_line(error)}"
    return f"{name} can't be loaded: {_first_line(error)}"
