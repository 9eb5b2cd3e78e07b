"""The page in a headless Chromium, as a reader uses it: one browser for all tests here."""

import json
import sqlite3

import pytest
from pages import broken_run, changed_run, core_run, empty_run, experts_run, hostile_run, open_browser, whole_run, written

import warm
from openmav.paint import percent, printable, visible
from openmav.paint.marks import number_text
from openmav.panels.widgets.lens import piece
from openmav.recording.reader import Recording
from openmav.recording.replay import at_branch, snapshot_of

pytest.importorskip("selenium", reason="no browser test without selenium: pip install -e '.[dev]'")
from browsing import AFTER_DRAWING, CONTRASTS, WALK, address, drawn, hover, press, text
from selenium.webdriver.common.keys import Keys


@pytest.fixture(scope="module")
def recordings(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pages")
    changed_run(folder / "run.mav")
    core_run(folder / "core.mav")
    hostile_run(folder / "hostile.mav", folder / "run.mav")
    empty_run(folder / "empty.mav")
    broken_run(folder / "broken.mav")
    whole_run(folder / "whole.mav")
    experts_run(folder / "experts.mav")
    assert warm.run("sweep", "--backend", "toy", "--model", "toy", "--prompt", "Hi", "--record", str(folder / "sweep.mav")).returncode == 0
    for name in ("run", "core", "hostile", "empty", "broken", "whole", "experts", "sweep"):
        written(folder / f"{name}.mav", folder / f"{name}.html")
    return folder


@pytest.fixture(scope="module")
def browser():
    driver = open_browser()
    yield driver
    driver.quit()


@pytest.fixture
def page(browser, recordings):
    """Opens a page; afterwards nothing was said on the console, and nothing but the file was asked for."""

    def opened(name="run", address="", width=1280, height=800, **media):
        features = [
            {"name": f"prefers-{key.replace('_', '-')}", "value": value} for key, value in {"color_scheme": "light", **media}.items()
        ]
        browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
        metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 500}
        browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
        browser.get("about:blank")
        browser.get(f"{(recordings / name).with_suffix('.html').as_uri()}{address}")
        drawn(browser)
        return browser

    browser.get_log("browser"), browser.get_log("performance")
    yield opened
    assert browser.get_log("browser") == []
    events = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    requests = [event["params"]["request"]["url"] for event in events if event["method"] == "Network.requestWillBeSent"]
    assert requests
    assert all(url.startswith(("file://", "data:", "about:")) and "#" not in url for url in requests)
    assert len([url for url in requests if url.startswith("file://")]) == 1


def steps_of(recordings, branch=None):
    recording = Recording(recordings / "run.mav")
    now = snapshot_of(recording)
    return at_branch(now, branch) if branch else now


def test_every_number_is_the_recordings(page, recordings):
    browser = page(address="#tint=attention&layer=1&head=mean")
    shown, now = browser.execute_async_script(WALK), steps_of(recordings)
    assert len(shown) == len(now.steps) == 12
    decimals = 3 if now.steps[0].values["mlp_norm"].max() < 1 else 2 if now.steps[0].values["mlp_norm"].max() < 10 else 1
    for step, said in zip(now.steps, shown):
        facts = " ".join(said["facts"])
        assert said["token"] == visible(step.token)
        assert f"{number_text(step.surprisal, 2)} nats" in facts
        assert f"{number_text(step.entropy, 2)} nats" in facts
        assert f"{step.rank} of {now.info.vocab:,}" in facts
        probs = [percent(p).strip() for p in step.candidates.probs.tolist()]
        texts = list(map(visible, step.candidates.tokens))
        assert (said["tokens"], said["probs"]) == (texts, probs)
        sampled = ["cut" if p == 0 else f"→ {percent(p).strip()}" for p in step.candidates.sampled_probs.tolist()]
        assert said["sampled"] == ([""] * len(sampled) if step.sampling.greedy else sampled)
        assert said["mlp"] == [number_text(float(value), decimals) for value in step.values["mlp_norm"][::-1]]
        means = step.values["attention_entropy"].astype("float64").mean(axis=1)
        assert said["entropy"] == [number_text(float(value), 2) for value in means[::-1]]
        assert len(said["residual"]) == now.info.layers
        ids, tops = step.values["logit_lens.token_ids"][1], step.values["logit_lens"][1]
        top = " · ".join(f"{piece(step, int(number))} {percent(float(p)).strip()}" for number, p in list(zip(ids, tops))[:5])
        assert said["lens"] == f"Layer 1 at token {step.index}: {top}"
        assert (
            f"first token {percent(float(step.values['attention_rows'][1].astype('float64').mean(axis=0)[0])).strip()}" in said["attention"]
        )


def test_every_panel_shows_what_the_recording_has(page, recordings):
    browser = page("whole", "#t=10&layer=1")
    with Recording(recordings / "whole.mav") as recording:
        step = snapshot_of(recording).steps[10]
        values = {name: step.values[name] for name in step.values}
    note = text(browser, "#attribution-note")
    assert f"has the logit {number_text(float(values['attribution.logit'][0]), 2)}: " in note
    assert f"attention {number_text(float(values['attribution'][:, 0].astype('float64').sum()), 2)}, " in note
    other = int(browser.execute_script("return document.querySelector('#against option:last-child').value"))
    browser.execute_script(
        "const s = document.getElementById('against'); s.value = arguments[0]; s.dispatchEvent(new Event('change'))", other
    )
    browser.execute_async_script(AFTER_DRAWING)
    lead = float(values["attribution.logit"][0]) - float(values["attribution.top.logit"][0, other - 1])
    assert f"difference of the logits {number_text(lead, 2)}: " in text(browser, "#attribution-note")
    assert "adds" in hover(browser, "#attribution-map", x=50, y=60)
    rows = browser.execute_script("return [...document.querySelectorAll('#sampling-body li')].map((one) => one.innerText.split('\\n'))")
    raw, top = values["sampling_stages"][0], next(row for row in rows if row[0].startswith("top-k"))
    assert rows[1] == ["raw", "295", percent(float(raw[2])).strip(), number_text(float(raw[3]), 2), percent(float(raw[4])).strip()]
    assert top[1] == "20"
    said = browser.execute_script("return [...document.querySelectorAll('#neurons-body li')].slice(1).map((one) => one.innerText)")
    for line, number, value in zip(said, values["neurons.ids"][1], values["neurons"][1], strict=True):
        assert line.startswith(f"#{number}\n")
        assert number_text(abs(float(value)), 2) in line
    assert browser.execute_script("return document.querySelectorAll('#health-body li').length") == 5
    assert text(browser, "#own-body").startswith("mine at layer 1")
    assert browser.execute_script("return document.querySelectorAll('.column.mlp_norm s:not([hidden])').length") == 4
    assert "router (no layer" in text(browser, "#run-facts")
    browser.execute_script("const s = document.getElementById('heads-of'); s.value = 'sink_share'; s.dispatchEvent(new Event('change'))")
    assert percent(float(values["sink_share"][3, 0])).strip() in hover(browser, "#heads", x=3, y=3)
    narrow = {"width": 390, "height": 844, "deviceScaleFactor": 1, "mobile": True}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", narrow)
    browser.execute_async_script(AFTER_DRAWING)
    assert browser.execute_script("return document.documentElement.scrollWidth") <= 390


def test_experts_and_the_tokens_that_one_depends_on(page, recordings):
    browser = page("experts", "#t=3")
    with Recording(recordings / "experts.mav") as recording:
        now = snapshot_of(recording)
        values, told = {**now.steps[3].values}, now.attribution
    rows = browser.execute_script("return [...document.querySelectorAll('#router-body li')].map((one) => one.innerText.split('\\n'))")
    last = now.info.layers - 1
    pairs = zip(values["router.ids"][last].tolist(), values["router"][last].tolist())
    assert rows[0] == [str(last), *(text for number, weight in pairs for text in (f"#{number}", number_text(weight, 2)))]
    assert len(rows) == now.info.layers
    shown = browser.execute_script("return [...document.querySelectorAll('#input-body li')].map((one) => one.innerText.split('\\n'))")
    assert [row[:2] for row in shown] == [[str(at), visible(token)] for at, token in enumerate(told.tokens)]
    assert [float(row[2]) for row in shown] == pytest.approx(told.scores.tolist(), abs=0.005)
    assert visible(told.target) in text(browser, "#input-note")
    assert not browser.execute_script("return document.getElementById('neurons').checkVisibility()")
    assert "neurons (mixture of experts: see router)" in text(browser, "#run-facts")


def test_a_sweep_is_a_map(page, recordings):
    browser = page("sweep")
    site, change = (
        sqlite3.connect(recordings / "sweep.mav").execute("SELECT site, change FROM effects ORDER BY abs(change) DESC").fetchone()
    )
    assert text(browser, "#sweep-list li").startswith(f"{site}{'+' if change > 0 else ''}{number_text(change, 2)}")
    assert "each head ablated alone" in text(browser, "#sweep-title")
    assert hover(browser, "#sweep-map", x=40, y=4).startswith("L3.H0")
    shown = browser.execute_script(
        "return [...document.querySelectorAll('main > *')].filter((one) => one.checkVisibility()).map((one) => one.id)"
    )
    assert shown == ["text", "sweep", "run"]


def test_few_candidates_have_the_chosen_one_among_them(page, recordings):
    browser = page()
    steps = steps_of(recordings).steps
    browser.execute_script("document.getElementById('more').click()")
    low = 0
    for shown, step in zip(browser.execute_async_script(WALK), steps):
        texts, chosen = list(map(visible, step.candidates.tokens)), step.candidates.token_ids.tolist().index(step.token_id)
        assert shown["tokens"] == [*texts[:9], texts[max(chosen, 9)]]
        low += chosen > 9
    assert low


def test_keys_clicks_and_the_address(page):
    browser = page(address="#t=4&layer=2")
    assert text(browser, "#card-place").startswith("4 · position ")
    assert browser.execute_script("return document.getElementById('layer').value") == "2"
    press(browser, Keys.ARROW_RIGHT)
    assert text(browser, "#place") == "5 / 11"
    press(browser, "]")
    assert address(browser) == "#t=5&layer=3"
    press(browser, Keys.ARROW_DOWN)  # scrolls the page
    browser.execute_script("document.getElementById('lens-map').focus()")
    press(browser, Keys.ARROW_DOWN, Keys.ARROW_DOWN)
    assert address(browser) == "#t=5&layer=1"
    press(browser, "]]")
    press(browser, Keys.END)
    assert text(browser, "#place") == "11 / 11"
    press(browser, Keys.HOME)
    assert text(browser, "#place") == "0 / 11"
    browser.execute_script("document.querySelectorAll('#tokens .made')[7].click()")
    browser.execute_async_script(AFTER_DRAWING)
    assert text(browser, "#place") == "7 / 11"
    press(browser, "vv")
    assert address(browser) == "#t=7&layer=3&head=mean&tint=attention"
    press(browser, "}")
    assert "head 0" in text(browser, "#text-note")
    press(browser, "?")
    assert browser.execute_script("return document.getElementById('guide').open")
    press(browser, "?")
    browser.execute_script("location.hash = '#t=2'")
    browser.execute_async_script("setTimeout(arguments[0], 30)")
    browser.execute_async_script(AFTER_DRAWING)
    assert text(browser, "#place") == "2 / 11"
    browser.execute_script("location.hash = '#t=999999999&layer=77&head=x&branch=nobody'")
    browser.execute_async_script("setTimeout(arguments[0], 30)")
    browser.execute_async_script(AFTER_DRAWING)
    assert text(browser, "#place") == "11 / 11"


def test_the_lens_map_and_the_heads_say_what_is_under_the_pointer(page, recordings):
    browser = page(address="#t=3")
    step = steps_of(recordings).steps[0]
    said = hover(browser, "#lens-map", x=40, y=4)
    assert said.splitlines()[0] == f"Layer 3 at token 0 {visible(step.token)}"
    assert piece(step, int(step.values["logit_lens.token_ids"][3, 0])) in said
    assert percent(float(step.values["logit_lens"][3, 0])).strip() in said
    now = steps_of(recordings).steps[3]
    said = hover(browser, "#heads", x=3, y=3)
    assert said.splitlines()[0] == "Layer 3 head 0"
    assert f"{number_text(float(now.values['attention_entropy'][3, 0]), 2)} nats" in said
    assert "p" in hover(browser, "#tokens .made")
    assert "logit" in hover(browser, "#candidates li")
    assert "nats" in hover(browser, "#card-facts dt:nth-of-type(3)")


def test_branches_and_what_was_changed(page, recordings):
    browser = page()
    now = steps_of(recordings)
    (other,) = now.branches
    kinds = browser.execute_script("return [...document.querySelectorAll('#changes-list em')].map((one) => one.textContent)")
    assert sorted(kinds) == ["branch", "forced", "intervention", "sampling"]
    assert "modified" in text(browser, "#card-facts")
    assert "baseline" in text(browser, "#card-facts")
    browser.execute_script("document.querySelector('#changes-list button').click()")
    browser.execute_async_script(AFTER_DRAWING)
    assert text(browser, "#place").startswith("5 / ")
    press(browser, "b")
    steps = at_branch(now, other).steps
    assert text(browser, "#place").endswith(f" / {len(steps) - 1}")
    made = browser.execute_script("return [...document.querySelectorAll('#tokens .made')].map((one) => one.textContent).join('')")
    assert made == "".join(printable(step.text) for step in steps)
    assert f"branch={other}" in address(browser)


def test_themes_before_the_first_paint_and_by_key(page):
    browser = page(color_scheme="dark")
    ground = "return getComputedStyle(document.documentElement).backgroundColor"
    assert browser.execute_script(ground) == "rgb(15, 20, 25)"
    press(browser, "d")
    assert browser.execute_script(ground) == "rgb(251, 250, 247)"
    for _ in range(20):
        browser.refresh()
        drawn(browser)
        if browser.execute_script(ground) == "rgb(251, 250, 247)":  # Chromium keeps it in another process, on a busy machine a moment later
            break
    assert browser.execute_script(ground) == "rgb(251, 250, 247)"
    browser.execute_script("localStorage.clear()")
    browser.get_log("performance")
    page()


def test_focus_is_seen_and_motion_is_reduced_where_asked_for(page):
    browser = page()
    bar = "return getComputedStyle(document.querySelector('.bar i')).transitionDuration"
    assert browser.execute_script(bar) != "0s"
    press(browser, Keys.TAB, Keys.TAB)
    assert browser.execute_script("return getComputedStyle(document.activeElement).outlineStyle") == "solid"
    assert page(reduced_motion="reduce").execute_script(bar) == "0s"
    browser.get_log("performance")
    page()


def test_it_works_inside_of_another_page(browser, recordings):
    """As a notebook shows it: without an address and without storage of its own."""
    browser.get("about:blank")
    browser.get_log("browser")
    frame = "const f = document.createElement('iframe'); f.sandbox = 'allow-scripts'; f.srcdoc = arguments[0]; document.body.append(f)"
    browser.execute_script(frame, (recordings / "run.html").read_text("utf-8"))
    browser.switch_to.frame(0)
    drawn(browser)
    press(browser, "n")
    browser.execute_script("document.getElementById('theme').click(); document.getElementById('back').click()")
    assert address(browser) == ""
    assert text(browser, "#place") == "10 / 11"
    browser.switch_to.default_content()
    assert browser.get_log("browser") == []


def test_it_fits_a_phone_and_prints(page):
    browser = page(width=390, height=844)
    assert browser.execute_script("return document.documentElement.scrollWidth") <= 390
    targets = browser.execute_script("return ['back', 'forward'].map((id) => document.getElementById(id).getBoundingClientRect().height)")
    assert min(targets) >= 40
    at = browser.execute_script(
        "const b = document.querySelectorAll('#tokens .made')[2].getBoundingClientRect(); return [b.x + 3, b.y + 3]"
    )
    for kind, points in (("touchStart", [{"x": at[0], "y": at[1]}]), ("touchEnd", [])):
        browser.execute_cdp_cmd("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})
    browser.execute_async_script(AFTER_DRAWING)
    assert text(browser, "#place") == "2 / 11"
    pdf = browser.execute_cdp_cmd("Page.printToPDF", {"printBackground": True})["data"]
    assert len(pdf) > 20_000


def test_foreign_text_does_nothing(page):
    browser = page("hostile")
    assert browser.execute_script("return window.hurt === undefined && document.querySelectorAll('img, main script').length === 0")
    assert "<script>window.hurt=1</script>" in text(browser, "#card-token")
    assert "<img src=x" in text(browser, "#model")
    assert "<script>" in text(browser, "#run-facts")


def test_what_was_not_recorded_says_so(page):
    browser = page("core", "#tint=attention")
    assert text(browser, "#lens-note").startswith("none: not recorded")
    assert text(browser, "#text-note").startswith("none: not recorded")
    assert "none: not recorded" in text(browser, ".column.residual_norm")


def test_a_run_without_a_token_says_so(page):
    browser = page("empty")
    assert text(browser, "#card-token") == "no token yet"
    assert text(browser, "#place") == "no token yet"
    assert "none" in text(browser, "#lens-note")


def test_numbers_of_a_broken_model_are_shown_as_such(page):
    browser = page("broken", "#t=2&tint=attention")
    assert "NaN" in text(browser, "#card-facts")
    assert "warning" in text(browser, "#card-facts")
    assert browser.execute_script("return document.querySelector('#candidates i').getBoundingClientRect().width") <= 1
    assert text(browser, "#text-note").startswith(("none: ", "Where layer"))


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_all_text_can_be_read(theme, page):
    browser = page("whole", color_scheme=theme)
    press(browser, "?")
    count, poor = browser.execute_script(CONTRASTS)
    assert (count > 150, poor) == (True, [])


@pytest.mark.parametrize("width", [1280, 1700, 1720, 2000, 2010])
def test_no_heading_and_no_end_of_an_axis_is_cut(page, width):
    browser = page("whole", width=width, height=1000)
    cut = "(one) => one.scrollWidth > one.clientWidth || one.scrollHeight > one.clientHeight"
    headings = f"return [...document.querySelectorAll('.column h3, .column .end')].filter({cut}).map((one) => one.textContent)"
    assert browser.execute_script(headings) == []
