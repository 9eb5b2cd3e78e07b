"""The live app: it polls a source on a timer, keeps one View, and has the panels draw it."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

from textual import actions, events
from textual.app import App, ComposeResult, SystemCommand
from textual.binding import BindingType
from textual.containers import Container
from textual.filter import LineFilter
from textual.geometry import Size
from textual.message import Message
from textual.screen import Screen

from openmav.apps.tui.boxes import Tile
from openmav.apps.tui.controllers.attribution import AttributionController
from openmav.apps.tui.controllers.baseline import BaselineController
from openmav.apps.tui.controllers.branches import BranchesController
from openmav.apps.tui.controllers.changes import ChangesController
from openmav.apps.tui.controllers.context import Context
from openmav.apps.tui.controllers.copying import CopyController
from openmav.apps.tui.controllers.display import DisplayController
from openmav.apps.tui.controllers.interventions import InterventionsController
from openmav.apps.tui.controllers.layouts import LayoutsController
from openmav.apps.tui.controllers.measures import MeasureRequests
from openmav.apps.tui.controllers.model import ModelController
from openmav.apps.tui.controllers.navigation import NavigationController
from openmav.apps.tui.controllers.panels import PanelsController
from openmav.apps.tui.controllers.previews import PreviewRequests
from openmav.apps.tui.controllers.reading import ReadingController
from openmav.apps.tui.controllers.recording import RecordingController
from openmav.apps.tui.controllers.run import RunController
from openmav.apps.tui.controllers.sampling import SamplingController
from openmav.apps.tui.controllers.sweep import SweepController
from openmav.apps.tui.controllers.text import TextController
from openmav.apps.tui.controllers.watches import WatchesController
from openmav.apps.tui.flood import Flood
from openmav.apps.tui.job_control import catch_stops
from openmav.apps.tui.keys import action_of, current_ids, keys_of
from openmav.apps.tui.kinds import for_view
from openmav.apps.tui.layout import place_all, single
from openmav.apps.tui.pasting import take_out_pastes
from openmav.apps.tui.performance import Performance
from openmav.apps.tui.safe_panel import is_under_way
from openmav.apps.tui.terminal_signals import TerminalGuard
from openmav.apps.tui.textual_bindings import bindings
from openmav.apps.tui.themes import register
from openmav.apps.tui.tiles import theme_of
from openmav.apps.tui.widgets.bars import Footer, Header, LayoutBar, Notice
from openmav.apps.tui.widgets.messages import Clicked, LayoutChosen, Wheeled
from openmav.apps.tui.widgets.neutral_filter import NeutralFilter
from openmav.apps.tui.widgets.panel_tile import PanelTile
from openmav.paint import PALETTES
from openmav.protocol.source import Source
from openmav.view import View
from openmav.view.options import AppOptions

WITHOUT_PANELS = frozenset({"help", "theme", "save", "escape"})  # keys that do something on a screen without panels
TICK = 1 / 12  # seconds between two polls of the source


@dataclass(frozen=True)
class Controllers:
    """Actions in the table of keys name these: "run.toggle" calls `run.toggle()`."""

    run: RunController
    text: TextController
    sampling: SamplingController
    branches: BranchesController
    interventions: InterventionsController
    changes: ChangesController
    attribution: AttributionController
    watches: WatchesController
    sweep: SweepController
    model: ModelController
    navigation: NavigationController
    reading: ReadingController
    baseline: BaselineController
    panels: PanelsController
    layouts: LayoutsController
    recording: RecordingController
    display: DisplayController
    copying: CopyController


class MavApp(App[None]):
    """The screen around a source. All that it shows is in `view`; every key makes a new view or sends a command to the source."""

    CSS_PATH = Path(__file__).with_name("tui.tcss")  # subclasses in other folders use it too
    TITLE = "mav"
    ALLOW_SELECT = False
    NEUTRAL = NeutralFilter()
    BINDINGS: ClassVar[list[BindingType]] = bindings()

    def __init__(self, source: Source, options: AppOptions) -> None:
        super().__init__(ansi_color=True if not options.color else None)
        take_out_pastes(self.driver_class)
        options = replace(options, keys=current_ids(options.keys))
        self.source = source
        view = View(options=options, layout=options.shown_layout, theme=theme_of(options), watches=options.watches)
        self.context = context = Context(source, view, self)
        self.panels = panels = PanelsController(context)
        self.measures, self.previews = self.make_measures(), PreviewRequests(context)
        changes = ChangesController(context, panels)
        self.controllers = Controllers(
            run=RunController(context),
            text=TextController(context),
            sampling=SamplingController(context, self.previews),
            branches=BranchesController(context),
            interventions=InterventionsController(context, changes),
            changes=changes,
            attribution=AttributionController(context, panels),
            watches=WatchesController(context, self.measures),
            sweep=SweepController(context, panels),
            model=ModelController(context),
            navigation=NavigationController(context, panels),
            reading=ReadingController(context),
            baseline=BaselineController(context),
            panels=panels,
            layouts=LayoutsController(context, panels),
            recording=RecordingController(context),
            display=DisplayController(context, panels, self.export_screenshot, self.use_theme),
            copying=CopyController(context, self.copy_to_clipboard),
        )
        self.extent = Size(80, 24)  # of the terminal, from the last resize event
        self.guard = TerminalGuard(self, source.close)
        self._shown_version: int | None = None  # of the snapshot that is drawn
        self._shown_notice = ""
        self._layer_rows = 0  # that the layer panels showed last
        self._drawable = False
        leaving = keys_of(options.keys)
        self._flood = Flood({key for name in ("quit", "interrupt", "escape") for key in leaving[name].split(",")})
        self._performance = Performance(lambda: getattr(source, "pid", None))
        register(self, PALETTES[self.view.theme])

    def make_measures(self) -> MeasureRequests:
        return MeasureRequests(self.context, self.panels)

    @property
    def view(self) -> View:
        return self.context.view

    # ---- life cycle ----

    def compose(self) -> ComposeResult:
        yield Header()
        yield LayoutBar()
        with Container(id="body"):
            for name, module in self.panels.modules.items():
                yield PanelTile(name, module)
        yield Notice()
        yield Footer(self.source.can)

    def on_mount(self) -> None:
        self.animation_level = "none"
        self.extent, self._drawable = self.size, True
        self.set_keymap(dict(self.view.options.keys))
        self.guard.catch_signals()
        self.guard.leave_nothing_behind()
        catch_stops(self)
        self.controllers.layouts.lead(self.shows_one_panel(0))
        self.measures.update()
        self.tick()
        self.set_interval(TICK, self.tick)

    def tick(self) -> None:
        """Takes the newest state of the source; does nothing where it is already shown."""
        self.guard.leave_if_orphaned()
        now = self.source.snapshot()
        expired = self._shown_notice and self.context.notice != self._shown_notice
        if now.version == self._shown_version and not expired and not is_under_way(self.panels.modules.values()):
            return
        if (now.notice, now.notices) != (self.view.notice, self.view.notices):
            self.context.note = ""
        self._shown_version = now.version
        self.context.view = self._performance.seen(self.view.updated(now))
        self.redraw()

    def post_message(self, message: Message) -> bool:
        if isinstance(message, events.InputEvent) and not message.is_forwarded:
            self._flood.arrive(message)
        return super().post_message(message)

    async def on_event(self, event: events.Event) -> None:
        if isinstance(event, events.InputEvent) and (
            self._exit or not self.screen_stack or self._flood.drops(event, time.monotonic(), writing=len(self.screen_stack) > 1)
        ):
            event.stop()
            return
        await super().on_event(event)

    def on_resize(self, event: events.Resize) -> None:
        self.extent = event.size
        self.redraw()

    # ---- drawing ----

    def get_line_filters(self) -> Sequence[LineFilter]:
        return [*super().get_line_filters(), self.NEUTRAL]

    def redraw(self) -> None:
        """Draws the view in all widgets; does nothing before they are mounted and once they are being removed."""
        if not self._drawable or not self.is_running:
            return
        began = time.perf_counter()
        self.controllers.changes.observe()
        self.previews.update()
        base, width, panels = self.screen_stack[0], self.extent.width, self.panels
        panels.places = {tile.name: tile for tile in self.places(self.rows_taken(base, width))}
        self.measures.update()
        if rows := panels.layer_rows():
            self.context.view = self.view.with_layer_rows(self._layer_rows, rows)
        self._layer_rows = rows
        with self.batch_update():
            base.query_one(Header).show(self.view, width)
            base.query_one(LayoutBar).show(self.view, width, self.extent.height)
            base.query_one(Footer).show(self.view, width, panels.focused_module)
            for tile in self._tiles(base):
                place = panels.places.get(tile.panel)
                tile.move_to(place)
                tile.show(self.view, tile.panel == panels.focused)
        self.context.view = self._performance.updated(self.view, time.perf_counter() - began)

    def _tiles(self, base: Screen) -> Iterable[PanelTile]:
        """The tiles of all panels, also of those that were removed: they are kept, hidden."""
        tiles = {tile.panel: tile for tile in base.query(PanelTile)}
        new = {name: PanelTile(name, module) for name, module in self.panels.modules.items() if name not in tiles}
        if new:
            base.query_one("#body", Container).mount_all(new.values())
        return {**tiles, **new}.values()

    def rows_taken(self, base: Screen, width: int) -> int:
        """Shows what is between the panels and the footer; returns its rows."""
        self._shown_notice = self.context.notice
        return base.query_one(Notice).show(self.view, self._shown_notice, width)

    def places(self, taken: int) -> list[Tile]:
        """The boxes of the panels, with `taken` rows for other things."""
        panels, view = self.panels, self.view
        if view.status == "failed" and not view.steps:  # there is nothing to show
            return []
        kinds = for_view(panels.kinds, panels.modules, view)
        alone = self.shows_one_panel(taken)
        return place_all(kinds, view.layers, *self.extent, view.options.grid_rows, panels.focused, panels.maximised, taken, alone)

    def shows_one_panel(self, taken: int) -> bool:
        """Whether the screen is too small for panels side by side."""
        return single(*self.extent)

    # ---- actions ----

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """Under a form, a list or a page, keys belong to that; ctrl+c ends the app all the same."""
        if action == "perform" and len(self.screen_stack) > 1 and parameters != ("interrupt",):
            return False
        return super().check_action(action, parameters)

    async def action_perform(self, id: str) -> None:
        """What the key with this id in the table does."""
        if self.view.status == "failed" and not self.view.steps and id not in WITHOUT_PANELS:
            self.context.notify("there is nothing to show")
            return
        action = action_of(id)
        controller, name, arguments = actions.parse(action)
        if controller:
            getattr(getattr(self.controllers, controller), name)(*arguments)
        else:
            await self.run_action(action)

    def on_clicked(self, message: Clicked) -> None:
        self.panels.click(message.name, message.x, message.y)
        if starter := self.view.starter:
            self.context.view = replace(self.view, starter="")
            self.controllers.interventions.add(starter)

    def on_layout_chosen(self, message: LayoutChosen) -> None:
        self.controllers.layouts.show(message.name)

    def on_wheeled(self, message: Wheeled) -> None:
        self.controllers.navigation.wheel(message.name, message.by)

    def use_theme(self, name: str) -> None:
        self.theme = f"mav-{name}"

    def action_command_palette(self) -> None:
        from openmav.apps.tui.screens.palette import Palette

        if not isinstance(self.screen, Palette):
            self.push_screen(Palette(id="--command-palette"))

    def get_system_commands(self, screen: Screen) -> Iterable[SystemCommand]:
        """The command palette: all keys by name, panels, layouts and themes."""
        from openmav.apps.tui.system_commands import commands

        return commands(self.view, self.action_perform, self.controllers)
