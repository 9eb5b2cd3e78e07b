"""Loads a model by name, folder, GGUF file or "demo"; errors say in one line why that is not possible."""

from __future__ import annotations

import shutil
import tempfile
import uuid
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import transformers
from huggingface_hub import errors as hub
from transformers import AutoConfig, AutoTokenizer, GenerationConfig, PreTrainedModel

from openmav.backends.base import LoadOptions, Progress
from openmav.backends.loading import checkpoint, choice
from openmav.backends.loading.gguf_metadata import GgufHeader
from openmav.backends.transformers.decoding import generation_config
from openmav.backends.transformers.loading import adapters, claims, gguf_file, image_text, placement, quantised, weights_report
from openmav.backends.transformers.tokens import tokenizer_limits
from openmav.backends.transformers.tokens.tokenizer_limits import panics_as_errors
from openmav.backends.transformers.tokens.tokens import add_processor_template
from openmav.errors import LoadError
from openmav.system.memory import out_of_memory


def load(name: str, options: LoadOptions, progress: Progress | None) -> tuple[PreTrainedModel, Any, tuple[str, ...]]:
    """(model, tokenizer, notes about the weights), the model in evaluation mode on its device or devices.

    Raises LoadError.
    """
    choice.refuse_placement("transformers", options)
    on_progress = progress or (lambda _text, _share: None)
    device = placement.pick_device(options.device)
    source = checkpoint.find(name)
    with explained(name):
        on_progress("reading the configuration", None)
        source, adapter = adapters.find(name, source)
        if source.gguf is not None:
            quantised.need_packages(name, "gguf")
        common: dict[str, Any] = {"trust_remote_code": options.trust_remote_code, **source.arguments}
        head = gguf_file.header(name, source)
        config = AutoConfig.from_pretrained(source.place, **common)
        claims.check(name, source.place, head, config)
        file_notes = () if head is None else gguf_file.configure(name, config, head)
        tries = image_text.classes(name, config, trusted=options.trust_remote_code)
        how = quantised.method(config)
        if how is not None:
            quantised.need_packages(name, how)
        dtype = placement.pick_dtype(options.dtype, device, config)
        on_progress("loading the tokenizer", None)
        tokenizer = _tokenizer(name, source.place, common, adapter)
        add_processor_template(tokenizer, source.place)
        generation = generation_config.read(source.place, source.arguments)
        on_progress(f"loading the weights as {str(dtype).removeprefix('torch.')}", None)
        with _offload_folder() as folder:
            placed = placement.device_map(options.device, device, how is not None, str(folder))
            arguments = {**_weights(source, options), **placed, **common, "config": config, "dtype": dtype}
            arguments["generation_config"] = None if generation is None else GenerationConfig()
            model, report = _load_first_complete(source.place, tries, arguments)
            if folder.exists():
                weakref.finalize(model, shutil.rmtree, folder, ignore_errors=True)
        weights_report.check(name, report)
        if generation is not None:
            model.generation_config = generation
        if head is not None:
            _check_gguf(name, model, head)
        if not placed:
            on_progress(f"moving the model to {device}", None)
            model = model.to(device)
        if type(model)._can_set_attn_implementation():  # else it keeps transformers' choice, as in `generate`
            use_attention(model, "eager")
        notes = (*quantised.notes(model.config, source.gguf), *file_notes, *_weight_notes(model, config, report))
        if adapter is not None:
            on_progress("applying the adapter", None)
            model, note = adapters.apply(name, model, adapter)
            notes = (*notes, note)
        return model.eval(), tokenizer, notes


def _load_first_complete(place: str, tries: tuple[Any, ...], arguments: dict[str, Any]) -> tuple[PreTrainedModel, dict[str, Any]]:
    """The model of the first class that lacks no weight, or of the last one; and transformers' report on the weights."""
    for number, auto_class in enumerate(tries, 1):
        model, report = auto_class.from_pretrained(place, output_loading_info=True, **adapters.IGNORED, **arguments)
        if number == len(tries) or not (report.get("missing_keys") or report.get("mismatched_keys")):
            return model, report
        del model
    raise AssertionError("no class to load with")


def _check_gguf(name: str, model: PreTrainedModel, head: GgufHeader) -> None:
    """Raises LoadError for contents of the file that are not in the model; the file's end tokens become the model's."""
    gguf_file.check_tensors(name, model, head)
    gguf_file.check_frequencies(name, model, head)
    named = getattr(model.generation_config, "eos_token_id", None)
    ends = {*head.end_ids, *(named if isinstance(named, list) else () if named is None else (named,))}
    if ends and model.generation_config is not None:
        model.generation_config.eos_token_id = sorted(ends)


def _weight_notes(model: PreTrainedModel, config: Any, report: dict[str, Any]) -> tuple[str, ...]:
    """Lines on an image-text model, and on tensors of the files that the model does not use."""
    if not image_text.has_images(config):
        return weights_report.notes(model, report)
    return (image_text.TEXT_SIDE, *weights_report.notes(model, report, image_text.image_side(model, report.get("unexpected_keys") or ())))


def _weights(source: checkpoint.Checkpoint, options: LoadOptions) -> dict[str, Any]:
    """Safetensors only. A GGUF file is unpacked: computing on its blocks needs code from the hub, which has to be allowed."""
    if source.gguf is None:
        return {"use_safetensors": True}
    unpack = getattr(transformers, "GgufConfig", None)
    return {} if unpack is None or options.trust_remote_code else {"quantization_config": unpack(dequantize=True)}


@contextmanager
def _offload_folder() -> Iterator[Path]:
    """A folder for weights that accelerate offloads to disk; it is created only if needed, and removed after an error."""
    folder = Path(tempfile.gettempdir()) / f"mav-offload-{uuid.uuid4().hex}"
    try:
        yield folder
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise


def use_attention(model: PreTrainedModel, name: str) -> None:
    """Switch a model's attention; a model without transformers' attention interface keeps its own."""
    if model.config._attn_implementation != name:
        model.set_attn_implementation(name)


def _tokenizer(name: str, place: str, common: dict[str, Any], adapter: adapters.Adapter | None) -> Any:
    """The adapter's own tokenizer, where it has one, else the model's."""
    if adapter is not None and adapter.has_tokenizer:
        place = str(adapter.folder)
    try:
        tokenizer = AutoTokenizer.from_pretrained(place, **common)
    except (OSError, ValueError, KeyError, TypeError) as error:
        if _is_network(error):
            raise
        raise LoadError(f"{name} has no tokenizer that transformers can load ({_first_line(error)})") from error
    tokenizer_limits.check(name, tokenizer)
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
def explained(name: str) -> Iterator[None]:
    """Context manager: turns exceptions of the libraries into a LoadError that says what to do."""
    try:
        with panics_as_errors():
            yield
    except LoadError:
        raise
    except Exception as error:
        raise LoadError(_explain(name, error)) from error


def _explain(name: str, error: Exception) -> str:
    chain = list(_chain(error))
    text = " ".join(str(e) for e in chain)
    of_hub = checkpoint.hub_problem(name, chain)
    if of_hub is not None:
        return of_hub
    if _is_network(error):
        return f"{name} {checkpoint.NOT_HERE}"
    if any(type(e).__name__ == "SafetensorError" for e in chain) or quantised.damaged(name, text):
        return f"the weights of {name} are damaged or incomplete ({_first_line(chain[0])}); download them again"
    if any(map(out_of_memory, chain)):
        return f"{name} does not fit into memory; try --dtype bfloat16, a smaller model, or another --device"
    if "safetensors" in text and "does not appear to have" in text:
        return f"{name} has no safetensors weights; pickle files can run code, so mav does not load them"
    if "trust_remote_code" in text:
        return f"{name} brings its own code; read it, then allow it with --trust-remote-code"
    if isinstance(error, ImportError):
        return f"{name} needs a package that is not installed: {_first_line(error)}"
    return f"{name} can't be loaded: {_first_line(error)}"
