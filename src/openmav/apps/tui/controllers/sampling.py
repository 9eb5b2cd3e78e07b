"""Sampling parameters: the temperature by keys, all of them in a form."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from openmav.apps.tui.controllers.context import LOADING, Context, error_of
from openmav.apps.tui.controllers.previews import PreviewRequests
from openmav.apps.tui.screens.modal import Field
from openmav.errors import UsageError
from openmav.protocol.commands import SetSampling
from openmav.record.sampling_preview import SamplingPreview
from openmav.settings.sampling import Sampling

SAMPLING = (  # field of Sampling, its label, a hint
    ("temperature", "temperature", "0: the most likely token"),
    ("top_k", "top-k", "0 is off"),
    ("top_p", "top-p", "1 is off"),
    ("min_p", "min-p", "0 is off"),
    ("repetition_penalty", "repetition penalty", "1 is off"),
)


class SamplingController:
    """Changes the sampling from the next token on."""

    def __init__(self, context: Context, previews: PreviewRequests) -> None:
        self._context, self._previews = context, previews

    def temperature(self, by: int) -> None:
        """Changes the temperature by `by` tenths, from the next token on."""
        context = self._context
        if context.view.info is None:  # its own temperature is not known yet
            context.notify(LOADING)
            return
        sampling = context.view.sampling
        changed = replace(sampling, temperature=max(0.0, round(sampling.temperature + by / 10, 1)))
        if not context.send(SetSampling(changed)):
            context.notify("this source does not support sampling parameters")
            return
        context.view = replace(context.view, sampling=changed)  # shown at once; the source's next snapshot has it too
        context.notify(f"temperature {changed.temperature:.1f}{' (greedy)' if changed.greedy else ''}, from the next token on")

    def open(self) -> None:
        """The form of all sampling parameters, with a preview of what is typed."""
        from openmav.apps.tui.screens.sampling import SamplingScreen

        context, previews = self._context, self._previews
        if not context.ready(SetSampling, "sampling parameters"):
            return
        now = context.view.sampling
        fields = [Field(name, label, f"{getattr(now, name):g}", hint) for name, label, hint in SAMPLING]

        def check(values: Mapping[str, str]) -> str:
            wrong = error_of(lambda: sampling_of(values, now))
            if not wrong:
                previews.draft = sampling_of(values, now)
                previews.update()
            return wrong

        def done(values: dict[str, str] | None) -> None:
            previews.draft = None
            if values is None:
                context.redraw()
                return
            changed = sampling_of(values, context.view.sampling)
            context.send(SetSampling(changed))
            context.view = replace(context.view, sampling=changed)
            context.notify(f"{changed.describe()}, from the next token on")
            context.poll()

        previews.draft = now
        previews.update()
        context.open(SamplingScreen(fields, check, lambda: context.view, self._preview), done)

    def _preview(self) -> SamplingPreview | None:
        """The newest preview; None before there is one of this text's newest token."""
        view = self._context.view
        preview = view.preview
        if preview is None or preview.index >= len(view.steps) or view.steps[preview.index].token_id != preview.token_id:
            return None
        return preview


def sampling_of(values: Mapping[str, str], before: Sampling) -> Sampling:
    """The sampling parameters of a form. Raises UsageError for a value that is not a number, or out of range."""
    numbers: dict[str, float | int] = {}
    for name, label, _ in SAMPLING:
        text = values[name].strip()
        try:
            numbers[name] = int(text) if name == "top_k" else float(text)
        except ValueError:
            raise UsageError(f"{label} must be a {'whole ' if name == 'top_k' else ''}number, not '{text}'") from None
    return replace(before, **numbers)  # type: ignore[arg-type]
