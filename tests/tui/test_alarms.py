"""The worst of the health checks, in the first line of every layout."""

from __future__ import annotations

from dataclasses import replace

import pytest
from driving import COMPACT, make_app, screen_text

from fakes import ScriptedSource, make_info, make_step
from openmav.view.layouts import LAYOUTS
from openmav.view.options import AppOptions

pytestmark = pytest.mark.asyncio


@pytest.mark.parametrize("layout", LAYOUTS)
async def test_the_first_line_of_every_layout_names_the_worst_alarm(layout: str) -> None:
    info = make_info()
    source = ScriptedSource([replace(make_step(at, info=info), token_id=7) for at in range(12)], info)
    app = make_app(source=source, options=AppOptions(panels=LAYOUTS[layout]))
    async with app.run_test(size=COMPACT):
        assert "! loop 12×" in screen_text(app).splitlines()[0]
