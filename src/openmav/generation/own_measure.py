"""Somebody's own measure in an app or a command: it may take its time, but one that hangs does not hold the model up for ever."""

from __future__ import annotations

from collections.abc import Mapping
from types import ModuleType

import numpy as np

from openmav.backends.base import Frame
from openmav.errors import MeasureError
from openmav.measures.base import Context
from openmav.plugins import contracts
from openmav.system.background_call import BackgroundCall


def compute_or_give_up(name: str, module: ModuleType, frame: Frame, context: Context) -> np.ndarray | Mapping[str, np.ndarray]:
    """What the measure gives. Raises MeasureError where it gives nothing in time, and what its `compute` raises."""
    import torch

    inference, grad = torch.is_inference_mode_enabled(), torch.is_grad_enabled()  # each thread has its own

    def compute() -> np.ndarray | Mapping[str, np.ndarray]:
        with torch.inference_mode(inference), torch.set_grad_enabled(grad):
            return module.compute(frame, context)  # type: ignore[no-any-return]

    call = BackgroundCall(compute, "mav own measure")
    if not call.done.wait(contracts.MEASURE_LIMIT):
        call.give_up()
        raise MeasureError(f"measure '{name}' has taken {contracts.MEASURE_LIMIT:.0f} s for one token and is no longer computed")
    if call.error is not None:
        raise call.error
    return call.result  # type: ignore[return-value]
