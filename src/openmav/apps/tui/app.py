"""The live app: it polls a source from its own clock, keeps one View, and hands it to the panels."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable
from dataclasses import replace
from types import ModuleType
from typing import ClassVar

from textual import events
from textual.app import ComposeResult, SystemCommand
from textual.binding import BindingType
from textual.containers import Container
from textual.geometry import Size
from textual.screen import Screen

from openmav import registry
from openmav.apps.options import AppOptions
from openmav.apps.tui import bars
from openmav.apps.tui.arranging import Arranging
from openmav.apps.tui.asking import Asking
from openmav.apps.tui.costs import Costs
from openmav.apps.tui.draw import LOOKS, palette_of
from openmav.apps.tui.keys import BINDINGS
from openmav.apps.tui.layout import Tile, kinds_of, place_all
from openmav.apps.tui.looks import register
from openmav.apps.tui.messages import Clicked, Wheeled
from openmav.apps.tui.own import failure, is_own, picked
from openmav.apps.tui.signals import catch_signals, leave_if_orphaned, leave_nothing_behind
from openmav.apps.tui.touching import Touching
from openmav.apps.tui.watching import Watching
from openmav.apps.tui.widgets import Footer, Header, Notice, PanelTile
from openmav.paint import PALETTES
from openmav.panels import needs
from openmav.panels._view import View
from openmav.record import lacking
from openmav.source import Advance, Back, Command, Force, Pause, Run, SetSampling, Source, Want

TICK = 1 / 12  # seconds between two looks at the source


class MavApp(Arranging, Touching, Asking, Watching):
    """The screen around a source. All that it shows is in `view`; every key makes a new view or sends a command."""

    CSS_PATH = "tui.tcss"
    TITLE = "mav"
    ALLOW_SELECT = False
    BINDINGS: ClassVar[list[BindingType]] = BINDINGS

    def __init__(self, source: Source, options: AppOptions) -> None:
        super().__init__(ansi_color=True if not options.color else None)
        self.source = source
        self.modules: dict[str, ModuleType] = {name: registry.load("panels", name) for name in options.panels}
        self.kinds = kinds_of(self.modules, options.sizes.get(options.layout, {}))
        self.view = View(options=options, palette=palette_of(options), watches=options.watches)
        self.focus_name = next(iter(self.modules))
        self.extent = Size(80, 24)  # of the terminal, as the last resize said
        self.alone = False  # the focused panel has the screen to itself
        self.killed_by: int | None = None  # a signal that ended the app
        self.note = ""  # the app's own last word; the source's notice where empty
        self._read_notes: tuple[str, ...] = ()  # notes on the model that the reader has read
        self.asked_for: tuple[str, ...] = ()  # panels that do not stand there, whose measures are wanted all the same
        self._wanted: Want | None = None  # what the source was asked for
        self._seen: int | None = None  # version of the snapshot that is shown
        self._standing = False
        self._stopping = False  # ctrl+c was pressed, and its pause may still be on the way
        self._pending: Callable[[], None] | None = None  # what waits until the source has paused
        self._costs = Costs(getattr(source, "pid", None))
        register(self, self.view.palette)

    # ---- life ----

    def compose(self) -> ComposeResult:
        yield Header()
        with Container(id="body"):
            for name, module in self.modules.items():
                yield PanelTile(name, module)
        yield Notice()
        yield Footer(self.source.can)

    def on_mount(self) -> None:
        self.animation_level = "none"
        self.extent, self._standing = self.size, True
        self.set_keymap(dict(self.view.options.keys))
        catch_signals(self)
        leave_nothing_behind(self)
        self._want()
        self.tick()
        self.set_interval(TICK, self.tick)

    def tick(self) -> None:
        """Takes the newest state of the source; nothing happens where it is the one that is shown."""
        leave_if_orphaned(self)
        now = self.source.snapshot()
        if now.version == self._seen:
            return
        if now.notice != self.view.notice:
            self.note = ""
        self._seen = now.version
        self.view = self.view.updated(now)
        if self._pending is not None and now.status != "running":
            todo, self._pending = self._pending, None
            todo()
        self.redraw()

    def on_resize(self, event: events.Resize) -> None:
        self.extent = event.size
        self.redraw()

    # ---- drawing ----

    def redraw(self) -> None:
        """Shows the view everywhere; nothing before the widgets stand."""
        if not self._standing:
            return
        began = time.perf_counter()
        self._want()
        base, width = self.screen_stack[0], self.extent.width
        places = {tile.name: tile for tile in self.places(self.rows_taken(base, width))}
        self._keep_layer_in_sight(places)
        with self.batch_update():
            base.query_one(Header).show(self.view, width)
            base.query_one(Footer).show(self.view, width, self.modules[self.focus_name])
            for panel in base.query(PanelTile):
                place = places.get(panel.panel)
                panel.stand(place)
                panel.show(replace(self.view, gutter=place is None or place.gutter), panel.panel == self.focus_name)
        self.view = self._costs.noted(self.view, time.perf_counter() - began)

    def rows_taken(self, base: Screen, width: int) -> int:
        """Shows what stands between the panels and the keys; its rows."""
        return base.query_one(Notice).show(self.view, self.note or self.view.notice or self._notes(), width)

    def places(self, taken: int) -> list[Tile]:
        """Where the panels stand, with `taken` rows for other things."""
        grid = self.view.options.grid_rows
        return place_all(self.kinds, self.view.layers, *self.extent, grid, self.focus_name, self.alone, taken)

    def layer_rows(self, places: dict[str, Tile] | None = None) -> int:
        """Rows that the layer panels show; 0 where there are none."""
        places = places if places is not None else {tile.panel: tile.place for tile in self.query(PanelTile) if tile.place is not None}
        rows = [place.inner[1] for name, place in places.items() if self.kinds[name].group == "layers"]
        return min(rows, default=0)

    def _keep_layer_in_sight(self, places: dict[str, Tile]) -> None:
        rows = self.layer_rows(places)
        if rows:
            self.view = self.view.scrolled(0, rows)

    def see(self, view: View) -> None:
        """Another view of the same state."""
        if view != self.view:
            self.view = view
            self.redraw()

    def _notes(self) -> str:
        """What is to be known of this model, until the reader has closed it."""
        return "" if self.view.info is None or self.view.info.notes == self._read_notes else bars.notes(self.view)

    def say(self, text: str) -> None:
        """A line above the keys."""
        self.note = text
        self.redraw()

    # ---- commands to the source ----

    def _send(self, command: Command) -> bool:
        """Sends a command if the source takes it."""
        if type(command).__name__ not in self.source.can:
            return False
        self.source.send(command)
        return True

    def _want(self) -> None:
        """Asks for the measures that the panels need now, where they are not those that were asked for last."""
        focused = any(getattr(module, "FOCUS", False) for module in self.modules.values())
        measures, layer = needs((*self.modules, *self.asked_for), self.view.modes, self.view), self.view.layer if focused else None
        wanted = Want(measures, layer, self.view.cursor if self._lacking(measures, layer) else None)
        if wanted != self._wanted:
            self._wanted = wanted
            self._send(wanted)

    def _lacking(self, measures: frozenset[str], layer: int | None) -> bool:
        """Whether the reader looks at an earlier token for which not all of this was computed."""
        step, info = self.view.step, self.view.info
        return step is not None and info is not None and not self.view.following and bool(lacking(step, measures, layer, info.missing))

    def _when_paused(self, todo: Callable[[], None]) -> None:
        """Does something once no new token can come between; pauses first where needed."""
        if self.view.status == "running" and self._send(Pause()):
            self._pending = todo
        else:
            todo()

    def action_toggle_run(self) -> None:
        running = self.view.status == "running"
        if self._send(Pause() if running else Run()):
            self._stopping = False
            self.note = ""
            if not running:
                self.see(self.view.at_step(len(self.view.steps) - 1))
            self.tick()

    def action_next_token(self) -> None:
        self.view = self.view.at_step(len(self.view.steps) - 1)
        if not self._send(Advance(1)):
            self.say("this source makes no tokens; walk with the left and right keys")
        self.tick()

    def action_take_back(self) -> None:
        if not self.view.steps:
            self.say("there is no token to take back")
        elif self._send(Back(1)):
            self.view = self.view.at_step(len(self.view.steps) - 1)
            self.tick()

    def action_enter(self) -> None:
        """Forces the selected candidate in the place of the shown token; without one, makes a token."""
        step, row = self.view.step, self.view.candidate
        if step is None or row is None:
            self.action_next_token()
            return
        if not {"Back", "Force"} <= self.source.can:
            self.say("this source cannot put another token there")
            return
        index, token = step.index, int(step.candidates.token_ids[row])
        self._when_paused(lambda: self._force(index, token))
        self.tick()

    def action_temperature(self, by: int) -> None:
        """Changes the temperature by tenths; the next token obeys."""
        sampling = self.view.sampling
        changed = replace(sampling, temperature=max(0.0, round(sampling.temperature + by / 10, 1)))
        if not self._send(SetSampling(changed)):
            self.say("this source has no temperature to change")
            return
        self.view = replace(self.view, sampling=changed)  # as it stands in the source's snapshot from now on
        self.say(f"temperature {changed.temperature:.1f}{' (greedy)' if changed.greedy else ''}, from the next token on")

    def _force(self, index: int, token: int) -> None:
        """Takes back everything from `index` on and puts the token there."""
        count = len(self.source.snapshot().steps) - index
        if count > 0:
            self._send(Back(count))
        self._send(Force(token))
        self.view = replace(self.view, candidate=None, following=True)

    # ---- moving ----

    def action_scrub(self, by: int) -> None:
        self.see(self.view.at_step(self.view.cursor + by))

    def action_scrub_to(self, index: int) -> None:
        self.see(self.view.at_step(index if index >= 0 else len(self.view.steps) - 1))

    def action_candidate(self, by: int) -> None:
        self.see(self.view.candidate_beside(by))

    def action_layer(self, by: int) -> None:
        self.see(self.view.at_layer(self.view.layer + by, self.layer_rows()))

    def action_head(self, by: int) -> None:
        self.see(self.view.at_head(self.view.head + by))

    def action_scroll(self, pages: int) -> None:
        rows = self.layer_rows()
        self.see(self.view.scrolled(pages * max(1, rows - 1), rows))

    def action_panel(self, by: int) -> None:
        names = list(self.modules)
        self.focus_name = names[(names.index(self.focus_name) + by) % len(names)]
        self.redraw()

    def action_mode(self) -> None:
        """The next kind of what the focused panel shows, where it has more than one."""
        kinds = getattr(self.modules[self.focus_name], "MODES", ())
        if len(kinds) < 2:
            self.say("this panel shows one thing only")
        else:
            self.see(self.view.in_next_mode(self.focus_name, kinds))
            self._want()

    def action_maximise(self) -> None:
        self.alone = not self.alone
        self.redraw()

    def action_escape(self) -> None:
        self.alone = self.alone and self.view.candidate is not None
        self.note, self._read_notes = "", self.view.info.notes if self.view.info else ()
        self.view = replace(self.view, candidate=None).at_step(self.view.cursor)
        self.redraw()

    def on_clicked(self, message: Clicked) -> None:
        """Focus on the panel, and what the panel makes of the click."""
        self.focus_name = message.name
        place = self.query_one(f"#panel-{message.name}", PanelTile).place
        if place is not None:
            local = replace(self.view, gutter=place.gutter)
            view, failed = picked(self.modules[message.name], local, *place.inner, message.x, message.y)
            self.view, self.note = replace(view, gutter=True), failed or self.note
        self.redraw()

    def on_wheeled(self, message: Wheeled) -> None:
        """Layers scroll together; the timeline and the text walk through the tokens, the predictions through the candidates."""
        if self.kinds[message.name].group == "layers":
            self.see(self.view.scrolled(message.by * 2, self.layer_rows()))
        elif message.name == "top_predictions":
            self.action_candidate(message.by)
        elif message.name in ("timeline", "generated_text"):
            self.action_scrub(message.by)

    # ---- the rest ----

    def action_help(self) -> None:
        from openmav.apps.tui.help import HelpScreen

        module, place = self.modules[self.focus_name], self.query_one(f"#panel-{self.focus_name}", PanelTile).place
        why = failure(module, self.view, *place.inner) if place is not None and is_own(module) else ""
        self.push_screen(HelpScreen(str(module.TITLE), str(module.HELP), self.view, why))

    def action_theme(self) -> None:
        """The next look; without colour there is but one."""
        if not self.view.palette.color:
            self.say("NO_COLOR is set: there are no colours to change")
            return
        self.set_look(LOOKS[(LOOKS.index(self.view.palette.name) + 1) % len(LOOKS)])

    def set_look(self, name: str) -> None:
        self.theme = f"mav-{name}"
        self.see(replace(self.view, palette=PALETTES[name]))

    def action_save(self) -> None:
        name = time.strftime("mav-%Y%m%d-%H%M%S.svg")
        try:
            path = self.save_screenshot(name, os.getcwd())
        except OSError as error:
            self.say(f"cannot save the screen here: {error.strerror or error}")
        else:
            self.say(f"saved {path}")

    def action_interrupt(self) -> None:
        """Stops generating first, then quits."""
        stopped, self._stopping = self._stopping, True
        if self.view.status == "running" and not stopped and self._send(Pause()):
            self.say("paused; ctrl+c again quits")
            self.tick()
        else:
            self.exit()

    def get_system_commands(self, screen: Screen) -> Iterable[SystemCommand]:
        """The command palette: all keys by name, and the looks."""
        from openmav.apps.tui.palette import commands

        yield from commands(self)
