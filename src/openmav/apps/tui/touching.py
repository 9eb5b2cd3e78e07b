"""What a reader does to a run besides making tokens: sampling, words, prompts, branches, interventions."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

from textual.app import App

from openmav import interventions
from openmav.errors import UsageError
from openmav.panels._view import View
from openmav.panels.branches import label, tree
from openmav.sampling import Sampling
from openmav.source import Back, Command, EditPrompt, Forward, Intervene, Rename, Run, SetSampling, Source, Switch, Type

SAMPLING = (
    ("temperature", "temperature", "0 takes the likeliest token"),
    ("top_k", "top-k", "0 is off"),
    ("top_p", "top-p", "1 is off"),
    ("min_p", "min-p", "0 is off"),
    ("repetition_penalty", "repetition penalty", "1 is off"),
)
ABOUT_TOUCHING = "such as: ablate L5.H3 · ablate L7.mlp=mean · amplify L5.attn=0.5 · steer L8=vector.npy*4 · patch L6.resid@5=other prompt"


def sampling_of(values: Mapping[str, str], before: Sampling) -> Sampling:
    """The sampling that a form says. Raises UsageError for what is no number, or none that makes sense."""
    numbers: dict[str, float | int] = {}
    for name, said, _ in SAMPLING:
        text = values[name].strip()
        try:
            numbers[name] = int(text) if name == "top_k" else float(text)
        except ValueError:
            raise UsageError(f"{said} must be a {'whole ' if name == 'top_k' else ''}number, not '{text}'") from None
    return replace(before, **numbers)  # type: ignore[arg-type]


def wrong(check: Callable[[], object]) -> str:
    """What is wrong with a value, "" for nothing."""
    try:
        check()
    except UsageError as error:
        return str(error)
    return ""


class Touching(App[None]):
    """The part of the app that changes a run. Every action says why where the source cannot do it."""

    view: View
    source: Source

    def say(self, text: str) -> None:
        raise NotImplementedError

    def see(self, view: View) -> None:
        raise NotImplementedError

    def tick(self) -> None:
        raise NotImplementedError

    def _send(self, command: Command) -> bool:
        raise NotImplementedError

    def _when_paused(self, todo: Callable[[], None]) -> None:
        raise NotImplementedError

    def _can(self, command: type, what: str) -> bool:
        """Whether the source takes a command, and a model is there; says so where not."""
        if command.__name__ not in self.source.can:
            self.say(f"this source cannot {what}")
            return False
        if self.view.info is None:
            self.say("wait until the model is there")
            return False
        return True

    def _ask(
        self,
        title: str,
        fields: list[tuple[str, str, str, str]],
        check: Callable[[Mapping[str, str]], str],
        about: str = "",
        *,
        take: Callable[[dict[str, str]], object],
    ) -> None:
        """A form of (name, label, value, hint); `take` gets what was filled in."""
        from openmav.apps.tui.forms import Field, FormScreen

        def done(values: dict[str, str] | None) -> None:
            if values is not None:
                take(values)

        self.push_screen(FormScreen(title, [Field(*field) for field in fields], check, self.view.palette, about), done)

    # ---- sampling ----

    def action_sampling(self) -> None:
        """The form of all that decides how a token is chosen."""
        if not self._can(SetSampling, "choose otherwise"):
            return
        now = self.view.sampling
        shown = [(name, f"{said}", f"{getattr(now, name):g}", hint) for name, said, hint in SAMPLING]

        def take(values: dict[str, str]) -> None:
            changed = sampling_of(values, self.view.sampling)
            self._send(SetSampling(changed))
            self.view = replace(self.view, sampling=changed)
            self.say(f"{changed.describe()}, from the next token on")
            self.tick()

        self._ask("Sampling, from the next token on", shown, lambda values: wrong(lambda: sampling_of(values, now)), take=take)

    # ---- the ways of the text ----

    def action_forward(self) -> None:
        """One of the tokens that were taken back again, as it was."""
        if not self.view.ahead:
            self.say("there is no token ahead; b takes tokens back")
        elif self._send(Forward(1)):
            self.view = self.view.at_step(len(self.view.steps) - 1)
            self.tick()

    def action_type(self) -> None:
        """Words in the place of the token under the cursor, or after the newest one."""
        if not self._can(Type, "put words there"):
            return
        step = self.view.step if not self.view.following else None
        index, where = (step.index, f"in the place of token {step.index}") if step is not None else (None, "after the newest token")

        def take(values: dict[str, str]) -> None:
            self._when_paused(lambda: self._put(index, values["text"]))
            self.tick()

        field = ("text", "", "", "begin with a space for a new word")
        self._ask(f"Words to put {where}", [field], lambda values: "" if values["text"] else "type at least one character", take=take)

    def _put(self, index: int | None, text: str) -> None:
        count = len(self.source.snapshot().steps) - index if index is not None else 0
        if count > 0:
            self._send(Back(count))
        self._send(Type(text))
        self.view = replace(self.view, candidate=None, following=True)

    def action_edit_prompt(self) -> None:
        """Another prompt, on a branch of its own."""
        if not self._can(EditPrompt, "take another prompt") or self.view.prompt is None:
            return
        text = self.view.prompt.text

        def take(values: dict[str, str]) -> None:
            self._send(EditPrompt(_unescaped(values["text"])))
            self.view = replace(self.view, following=True, candidate=None)
            self._send(Run())
            self.tick()

        field = ("text", "", text.replace("\\", "\\\\").replace("\n", "\\n"), "the prompt; \\n is a line break")
        about = "The text so far stays on its branch; g goes back to it."
        self._ask("Another prompt", [field], lambda values: "" if values["text"] else "the prompt is empty", about, take=take)

    def action_branches(self) -> None:
        """The list of branches: go to one, give it a name, put it beside."""
        from openmav.apps.tui.forms import ListScreen

        if not self._can(Switch, "branch"):
            return
        now = self.view.branch
        ways = tree(self.view.all_branches())
        rows = [(branch.name, f"{'●' if branch.name == now else ' '} {label(branch, depth, 160)}") for branch, depth in ways]
        keys = {"n": ("name", "name it"), "c": ("compare", "put it beside")}
        self.push_screen(ListScreen("Branches", rows, keys, self.view.palette, now, "go there"), self._branch_chosen)

    def _branch_chosen(self, answer: tuple[str, str] | None) -> None:
        if answer is None:
            return
        what, name = answer
        if what == "compare":
            self.see(replace(self.view, other=name if name != self.view.branch else None))
        elif what == "name":
            field = ("name", "", name, "")
            self._ask(f"Another name for '{name}'", [field], self._wrong_name, take=lambda values: self._rename(name, values["name"]))
        elif name != self.view.branch:
            self._when_paused(lambda: self._go(name))
            self.tick()

    def _wrong_name(self, values: Mapping[str, str]) -> str:
        name = values["name"].strip()
        if name in self.view.branches:
            return f"there is a branch '{name}' already"
        return "" if name else "a branch needs a name"

    def _rename(self, old: str, new: str) -> None:
        self._send(Rename(old, new.strip()))
        self.view = replace(self.view, other=new.strip() if self.view.other == old else self.view.other)
        self.tick()

    def _go(self, name: str) -> None:
        left = self.view.branch
        self._send(Switch(name))
        self.view = replace(self.view, candidate=None, following=True, other=left)

    # ---- interventions ----

    def action_touch(self) -> None:
        """What is done to the model: see it, add to it, take it off."""
        from openmav.apps.tui.forms import ListScreen

        if not self._can(Intervene, "touch its model"):
            return
        now = self.view.interventions
        if not now:
            self._add_intervention()
            return
        keys = {"a": ("add", "add one"), "d": ("drop", "take this off"), "0": ("none", "take all off")}
        self.push_screen(ListScreen("Done to the model", [(one, one) for one in now], keys, self.view.palette), self._touched)

    def _touched(self, answer: tuple[str, str] | None) -> None:
        what, name = answer or ("", "")
        now = self.view.interventions
        if what == "add":
            self._add_intervention()
        elif what == "none":
            self._intervene(())
        elif what == "drop":
            self._intervene(tuple(one for one in now if one != name))

    def _add_intervention(self) -> None:
        start = f"ablate L{max(self.view.layer, 0)}.H{self.view.head}"

        def take(values: dict[str, str]) -> None:
            added = str(interventions.parse(values["spec"]))
            self._intervene((*(one for one in self.view.interventions if one != added), added))

        field = ("spec", "", start, "ablate, amplify, steer or patch")
        self._ask("Do this to the model", [field], lambda v: wrong(lambda: interventions.parse(v["spec"])), ABOUT_TOUCHING, take=take)

    def _intervene(self, specs: tuple[str, ...]) -> None:
        self._send(Intervene(specs))
        self.tick()


def _unescaped(text: str) -> str:
    """A line break for each \\n that was typed, one backslash for two."""
    return "\\".join(part.replace("\\n", "\n") for part in text.split("\\\\"))
