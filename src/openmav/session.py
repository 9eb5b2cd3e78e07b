"""The loop: read a prompt, then choose, freeze and feed one token after another; take tokens back; put others in their place."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from types import ModuleType
from typing import TYPE_CHECKING

import numpy as np

from openmav import registry
from openmav.backends._base import HEAD_SITES, SITES, Backend, Frame, LoadOptions, Progress
from openmav.detokenize import Detokenizer, Pieces
from openmav.errors import UsageError
from openmav.measures._base import Context
from openmav.record import Candidates, EndReason, ModelInfo, Prompt, Step, Timing, freeze_values, frozen
from openmav.sampling import Sampling
from openmav.settings import Settings

if TYPE_CHECKING:
    from openmav.sampler import Choice


def open_session(settings: Settings, progress: Progress | None = None) -> Session:
    """Load the model that the settings name and check the prompt against it; nothing is computed yet.

    Raises LoadError where the model can't be loaded, UsageError where the prompt does not fit it.
    """
    for file in settings.measure_files:
        registry.load("measures", registry.add_file("measures", file))
    module = registry.load("backends", settings.backend)
    options = LoadOptions(settings.device, settings.dtype, settings.trust_remote_code, settings.threads)
    return Session(module.load(settings.model, options, progress), settings)


class Session:
    """One text of one model. Iterate over it, or call `step` for each token.

    `steps` are the tokens so far, `reason` says why it ended and is None while it goes on.
    """

    def __init__(self, backend: Backend, settings: Settings) -> None:
        from openmav.sampler import Sampler

        self.backend = backend
        self.settings = settings
        self.prompt = _read_prompt(backend, settings)
        self.info: ModelInfo = replace(
            backend.info, missing=_missing_of_measures(backend), notes=(*backend.info.notes, *_notes_on(self.prompt))
        )
        self.steps: list[Step] = []
        self.reason: EndReason | None = None
        self._sampler = Sampler(settings.sampling)
        self._draws: list[object] = []  # the generator's state before each step
        self._prompt_frame: Frame | None = None
        self._last: tuple[Frame, Context] | None = None  # what the newest step was made from
        self._pieces = Pieces(backend.decode, (backend.encode("a") or self.prompt.token_ids)[-1])
        self._text = Detokenizer(backend.decode)
        for token_id in self.prompt.token_ids:
            self._text.add(token_id)
        self.want(settings.measures)

    # ---- what is asked for -----------------------------------------------------------------------------------------------

    def want(self, measures: Sequence[str], layer: int | None = None) -> None:
        """From the next step on, compute exactly these measures; those that cost too much for all layers, for `layer` only.

        Raises UsageError for an unknown one.
        """
        self._layer = layer
        found = {name: registry.load("measures", name) for name in measures}
        for name, module in found.items():
            for site in frozenset(module.NEEDS) - SITES - HEAD_SITES:
                raise UsageError(f"measure '{name}' needs the site '{site}', which there is not. Known: {', '.join(sorted(SITES))}")
        self._measures: dict[str, ModuleType] = found
        self._sites = frozenset(site for module in found.values() for site in module.NEEDS)

    def look_again(self) -> Step | None:
        """The newest step with what is wanted now, as far as its forward pass was captured for it; None where nothing is new."""
        if self._last is None:
            return None
        frame, context = self._last
        seen, step = frame.sites.keys() | HEAD_SITES, self.steps[-1]
        possible = {name: module for name, module in self._measures.items() if seen >= set(module.NEEDS)}
        if context.layer == self._layer and possible.keys() <= step.values.keys():
            return None
        self._last = frame, replace(context, layer=self._layer)
        values = {**step.values, **self._measure(*self._last, possible)}
        self.steps[-1] = replace(step, values=values, pieces=self._texts(values))
        return self.steps[-1]

    @property
    def sampling(self) -> Sampling:
        return self._sampler.sampling

    @sampling.setter
    def sampling(self, sampling: Sampling) -> None:
        self._sampler.use(sampling)

    @property
    def text(self) -> str:
        """What has been generated."""
        return "".join(step.text for step in self.steps)

    @property
    def token_ids(self) -> list[int]:
        """Prompt and generated tokens."""
        return [*self.prompt.token_ids, *(step.token_id for step in self.steps)]

    # ---- the loop --------------------------------------------------------------------------------------------------------

    def prefill(self, progress: Progress | None = None) -> None:
        """Read the prompt; done by the first step where nobody has done it."""
        self._prompt_frame = self.backend.prefill(self.prompt.token_ids, self._sites, progress)

    def step(self) -> Step:
        """Generate one token. Raises UsageError after the end."""
        return self._step(None)

    def force(self, token_id: int) -> Step:
        """Put this token next instead of drawing one."""
        if not 0 <= token_id < self.info.vocab:
            raise UsageError(f"there is no token {token_id}; this model has tokens 0 to {self.info.vocab - 1}")
        return self._step(token_id)

    def back(self, count: int = 1) -> None:
        """Take back the last `count` tokens, at most all; the next step is what it would have been then."""
        keep = max(0, len(self.steps) - max(0, count))
        if keep == len(self.steps):
            return
        self._sampler.generator.set_state(self._draws[keep])  # type: ignore[arg-type]
        del self.steps[keep:], self._draws[keep:]
        self._text.truncate(len(self.prompt.token_ids) + keep)
        self.reason = None
        self._last = None

    def __iter__(self) -> Iterator[Step]:
        while self.reason is None:
            yield self.step()

    def _step(self, forced: int | None) -> Step:
        if self.reason is not None:
            raise UsageError(f"the text has ended ({self.reason}); take a token back to go on")
        frame = self._frame()
        began = time.perf_counter()
        self._draws.append(self._sampler.generator.get_state())
        choice = self._sampler.choose(frame.logits, self.token_ids if self._sampler.chain else (), forced)
        chosen = time.perf_counter()
        context = self._context(frame, choice)
        values = self._measure(frame, context, self._measures)
        step = self._freeze(frame, choice, values, forced is not None, (began, chosen))
        self.steps.append(step)
        self._last = frame, context
        return step

    def _frame(self) -> Frame:
        """The forward pass at the end of the text: the prompt's, or that of the last token, which is fed now."""
        if self._prompt_frame is None:
            self.prefill()
        assert self._prompt_frame is not None
        fed = len(self.prompt.token_ids) + max(0, len(self.steps) - 1)
        self.backend.rewind(fed)
        if not self.steps:
            if self._sites - HEAD_SITES - self._prompt_frame.sites.keys():
                self.prefill()
            return self._prompt_frame
        return self.backend.decode_one_token(self.steps[-1].token_id, self._sites)

    def _context(self, frame: Frame, choice: Choice) -> Context:
        return Context(
            logits=frame.logits,
            probs=choice.probs,
            sampled_probs=choice.sampled_probs,
            top_ids=choice.top_ids,
            token_id=choice.token_id,
            aggregation=self.settings.aggregation,
            stages=choice.stages,
            sampling=self.sampling,
            layer=self._layer,
        )

    def _measure(self, frame: Frame, context: Context, measures: Mapping[str, ModuleType]) -> Mapping[str, np.ndarray]:
        values: dict[str, np.ndarray] = {}
        for name, module in measures.items():
            found = module.compute(frame, context)
            values |= found if isinstance(found, Mapping) else {name: found}
        return freeze_values(values)

    def _texts(self, values: Mapping[str, np.ndarray]) -> dict[int, str]:
        """The pieces of all tokens that the values name, for an app that has no tokenizer."""
        ids = [array.ravel().tolist() for name, array in values.items() if name.endswith(".token_ids")]
        return {i: self._pieces[i] for i in sorted(set().union(*ids)) if i >= 0}

    def _freeze(self, frame: Frame, choice: Choice, values: Mapping[str, np.ndarray], forced: bool, clock: tuple[float, float]) -> Step:
        """All of it as a Step. `clock`: when choosing began, and when it ended."""
        (began, chosen), token_id, index = clock, choice.token_id, len(self.steps)
        self.reason = self._ends_by_count(index, token_id)
        text = self._text.add(token_id, last=self.reason is not None)
        self.reason = self.reason or self._ends_by_text(text)
        return Step(
            index=index,
            position=len(self.prompt.token_ids) + index,
            token_id=token_id,
            token=self._pieces[token_id],
            text=text,
            logprob=choice.logprob,
            entropy=choice.entropy,
            candidates=self._candidates(frame, choice),
            values=values,
            special=self.backend.is_special(token_id),
            forced=forced,
            pieces=self._texts(values),
            timing=Timing(frame.model_seconds, time.perf_counter() - chosen, chosen - began),
        )

    def _candidates(self, frame: Frame, choice: Choice) -> Candidates:
        chosen = choice.top_ids[: self.settings.candidates].tolist()
        if choice.token_id not in chosen:
            chosen.append(choice.token_id)
        ids = np.array(chosen, dtype=np.int64)
        columns = (frame.logits, choice.probs, choice.sampled_probs)
        logits, probs, sampled = (frozen(column.numpy()[ids]) for column in columns)
        return Candidates(frozen(ids), tuple(self._pieces[i] for i in chosen), logits, probs, sampled)

    def _ends_by_count(self, index: int, token_id: int) -> EndReason | None:
        if token_id in self.backend.end_ids:
            return "eos"
        context = self.info.context
        full = context is not None and len(self.prompt.token_ids) + index + 1 >= context
        return "length" if full or index + 1 >= self.settings.max_new_tokens else None

    def _ends_by_text(self, new: str) -> EndReason | None:
        """A stop string that the new text completes."""
        if not self.settings.stop:
            return None
        reach = max(map(len, self.settings.stop)) + len(new)
        tail = (self.text + new)[-reach:]
        return "stop" if any(stop in tail for stop in self.settings.stop) else None

    def close(self) -> None:
        """Free the model, or give it back as it was."""
        self.backend.close()


def _missing_of_measures(backend: Backend) -> dict[str, dict[int, str]]:
    """What the backend lacks, said by measure: a measure has no value where one of its sites has none."""
    found: dict[str, dict[int, str]] = {}
    for name in registry.names("measures"):
        for site in registry.load("measures", name).NEEDS:
            if backend.missing.get(site):
                found.setdefault(name, {}).update(backend.missing[site])
    return found


def _notes_on(prompt: Prompt) -> list[str]:
    """What silently harms a text: a special token that begins it twice, as when a template and a tokenizer both add one."""
    ids = prompt.token_ids
    if len(ids) > 1 and ids[0] == ids[1] and prompt.special[0]:
        return [f"the prompt begins with {prompt.tokens[0]} twice; leave it out of the text, the tokenizer adds it"]
    return []


def _read_prompt(backend: Backend, settings: Settings) -> Prompt:
    """The tokens to feed, checked: some, and no more than the context holds."""
    text = settings.text
    if not text:
        raise UsageError("the prompt is empty; give some text with --prompt")
    ids = backend.encode(text, chat=settings.chat)
    if not ids:
        raise UsageError("the prompt gives no tokens; give some text with --prompt")
    limit = backend.info.context
    if limit is not None and len(ids) >= limit:
        raise UsageError(f"the prompt has {len(ids)} tokens and the context of {backend.info.name} holds {limit}; shorten the prompt")
    written = Detokenizer(backend.decode)
    tokens = tuple(written.add(token_id, last=i == len(ids) - 1) for i, token_id in enumerate(ids))
    return Prompt(text, tuple(ids), tokens, tuple(backend.is_special(i) for i in ids))
