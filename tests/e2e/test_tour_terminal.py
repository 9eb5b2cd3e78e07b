"""`mav tour` in a real terminal, on the bundled model: real keys, real answers."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from e2e.test_terminal import ended
from e2e.tmux import TMUX, Terminal, warm_mav

pytestmark = [pytest.mark.skipif(TMUX is None, reason="needs tmux"), pytest.mark.slow]


@pytest.fixture(params=[(80, 24), (160, 45)], ids=["80x24", "160x45"])
def terminal(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Terminal]:
    with Terminal(*request.param, home=tmp_path) as made:
        yield made


def test_the_tour_on_the_bundled_model(terminal: Terminal) -> None:
    before = terminal.state()
    terminal.type(warm_mav("tour"))
    terminal.wait_for(r"Press \. \(a dot\)")
    terminal.keys(".")
    terminal.wait_for(r"✓ The model generated")
    terminal.keys("c", "Down", "Down", "Enter")
    terminal.wait_for(r"✓ You forced")
    terminal.keys("c", "Space")
    terminal.wait_for(r"\bI am\b")  # the eighth token and more, on the demo
    terminal.keys("Space")
    terminal.wait_for(r"✓ \d+ new tokens")
    terminal.wait_for(r"space run ")
    terminal.keys("c", *["Left"] * 7)
    terminal.wait_for(r"was the surest choice that you\s+saw: \d")
    terminal.keys("c", *"-" * 5)
    terminal.wait_for(r"✓ The model gives “.+” [\d.]+ %; at temperature\s+0\.5")
    terminal.keys("c", *"+" * 5)
    terminal.wait_for(r"temperature 1\.5")
    terminal.keys(*"...")
    terminal.wait_for(r"✓ At temperature 1\.5, \d+ of [34]")
    terminal.keys("c", "}")
    terminal.wait_for(r"✓ Head 1 of layer 5 attends most to “.+”, with \d+ %")
    terminal.keys("c", *"[[[")
    terminal.wait_for(r"✓ In layer 2 attention added something of size \d")
    terminal.keys("c", ".")
    terminal.wait_for(r"✓ (Layer 0 predicts|The final answer)")
    terminal.keys("c", "1")
    terminal.wait_for(r"✓ Look around")
    terminal.keys("q")
    status, text = ended(terminal, before)
    assert status == 0
    assert "Mr. Darcy looked at the young" in text
    assert "nats · perplexity" in text
