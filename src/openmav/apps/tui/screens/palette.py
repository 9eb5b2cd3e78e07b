"""The command palette: Textual's own, in groups, found by meaning; it closes only once however many keys arrive."""

from __future__ import annotations

from textual import on
from textual.await_complete import AwaitComplete
from textual.command import CommandPalette, DiscoveryHit, Hit, Hits, Provider
from textual.content import Content
from textual.widgets import Input

from openmav.apps.tui.finding import match_score


class Commands(Provider):
    """All commands of the app, in the order of their groups; a query is found in their titles and in what they say about themselves."""

    async def discover(self) -> Hits:
        for title, about, run, _ in self.app.get_system_commands(self.screen):
            yield DiscoveryHit(Content(title), run, title, about)

    async def search(self, query: str) -> Hits:
        """Those that have all words of the query; where there are none, those that have its letters in their order."""
        commands = list(self.app.get_system_commands(self.screen))
        hits = [(match_score(query, title, about), title, about, run) for title, about, run, _ in commands]
        if not any(score for score, *_ in hits):
            matcher = self.matcher(query)
            hits = [(matcher.match(title), title, about, run) for title, about, run, _ in commands]
        for score, title, about, run in hits:
            if score > 0:
                yield Hit(score, Content(title), run, title, about)


class Palette(CommandPalette):
    """Textual's palette with mav's commands; a second enter that comes with the first one chooses nothing more."""

    def __init__(self, **arguments: str) -> None:
        super().__init__(providers=[Commands], placeholder="What do you want to do, or to see?", **arguments)

    def dismiss(self, result: object = None) -> AwaitComplete:
        """Close with this result; does nothing if it is closed already."""
        return super().dismiss(result) if self.is_active else AwaitComplete()  # type: ignore[arg-type]

    @on(Input.Submitted)
    def choose_once(self, event: Input.Submitted) -> None:
        if not self.is_active:
            event.prevent_default()
