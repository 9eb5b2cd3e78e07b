"""Recordings for the tests of the page, the page's own data read back, and a headless browser."""

import base64
import json
import re
import shutil
import sqlite3
import zlib
from dataclasses import replace

import numpy as np
import pytest
from runs import made, snapshot, toy

from backends.tiny_models import tiny_model
from fakes import IdTokenizer
from openmav.library import attach
from openmav.recording.export.run import export
from openmav.recording.recorder import Recorder
from openmav.recording.texts import sum_of_text
from openmav.settings import Settings
from openmav.settings.sampling import SamplingOptions

EVERY = ("mlp_norm", "attention_norm", "residual_norm", "attention_entropy", "relative_attention_entropy", "sink_share", "distribution")
EVERY += ("attention_rows", "logit_lens", "attribution", "neurons", "neuron_tokens", "sampling_stages", "cache_size", "router")
DTYPES = {"f8": "<f8", "f4": "<f4", "u4": "<u4", "u2": "<u2", "u1": "|u1", "i4": "<i4", "i2": "<i2"}
HOSTILE = "</script><script>window.hurt=1</script><img src=x onerror=window.hurt=2>\u202e\x1b[2J"


def changed_run(path):
    """Two branches, a forced token, another sampling, and an intervention."""
    session = toy(sampling=SamplingOptions(temperature=1.0, seed=3))
    made(session, 9)
    recorder = Recorder(path, session.settings)
    recorder.update(snapshot(session))
    session.back(4)
    session.force(9)
    session.sampling = SamplingOptions(temperature=0.5).over(session.sampling)
    made(session, 3)
    session.intervene(("ablate L0.mlp",))
    made(session, 3)
    recorder.update(snapshot(session))
    recorder.close()


def whole_run(path):
    """Every measure of the toy backend, one of a user's own, and an intervention at the end."""
    session = toy(measures=EVERY, sampling=SamplingOptions(temperature=1.0, top_k=20, top_p=0.95, seed=3))
    made(session, 9)
    session.intervene(("ablate L0.mlp",))
    made(session, 3)
    session.steps[:] = [replace(step, values={**step.values, "mine": step.values["mlp_norm"] * 2}) for step in session.steps]
    recorder = Recorder(path, session.settings)
    recorder.update(snapshot(session))
    recorder.close()


def experts_run(path):
    """A mixture of experts, which has no neurons of a layer, and the tokens that its last one depends on."""
    session = attach(tiny_model("mixtral"), IdTokenizer(), Settings(prompt="Hello", max_new_tokens=5, measures=EVERY))
    made(session, 5)
    recorder = Recorder(path, session.settings)
    recorder.update(replace(snapshot(session), attribution=session.explain("gradient")))
    recorder.close()


def core_run(path):
    """Without what takes room: no lens, no attention rows."""
    session = toy(measures=("mlp_norm",))
    made(session, 3)
    recorder = Recorder(path, session.settings)
    recorder.update(snapshot(session))
    recorder.close()


def empty_run(path):
    """A model and a prompt, and no token."""
    session = toy()
    session.prefill()
    recorder = Recorder(path, session.settings)
    recorder.update(snapshot(session))
    recorder.close()


def broken_run(path):
    """The model computes NaN from its third token on, until the text ends."""
    session = toy(model="toy?nan=2")
    while session.reason is None:
        session.step()
    recorder = Recorder(path, session.settings)
    recorder.update(snapshot(session))
    recorder.close()


def hostile_run(path, sound):
    """The sound one with texts that would do harm as markup or in a terminal."""
    shutil.copy(sound, path)
    database = sqlite3.connect(path)
    database.execute("UPDATE steps SET token = ?, text = ?", (HOSTILE, HOSTILE))
    database.execute("UPDATE steps SET detail = replace(detail, '\"pieces\":{}', ?)", (f'"pieces":{{"999999":{json.dumps(HOSTILE)}}}',))
    for (token_id,) in database.execute("SELECT id FROM texts").fetchall():
        row = (HOSTILE, sum_of_text(token_id, HOSTILE), token_id)
        database.execute("UPDATE texts SET text = ?, sum = ? WHERE id = ?", row)
    database.execute("UPDATE branches SET name = name || ?", (HOSTILE,))
    for name, value in database.execute("SELECT name, value FROM meta").fetchall():
        content = json.loads(value)
        if name == "model":
            content["name"] = HOSTILE
            content["notes"] = [HOSTILE]
        if name == "versions":
            content[HOSTILE] = HOSTILE
        database.execute("UPDATE meta SET value = ? WHERE name = ?", (json.dumps(content), name))
    database.commit()
    database.close()


def written(source, target):
    """The text of the page of a recording."""
    export(source, "html", target, force=True)
    return target.read_text("utf-8")


def unpacked(text):
    """The header and the arrays of a page, read without any of its own code."""
    data = re.search(r'id="data">([A-Za-z0-9+/=]+)</script>', text)[1]
    block = zlib.decompress(base64.b64decode(data))
    length = int.from_bytes(block[:4], "little")
    header, arrays = json.loads(block[4 : 4 + length]), block[4 + length :]
    read = {}
    for name, (kind, offset, shape) in header["arrays"].items():
        read[name] = np.frombuffer(arrays, DTYPES[kind], int(np.prod(shape)), offset).reshape(shape)
    return header, read


def open_browser():
    """A headless Chromium; skips where there is none, or no driver for it."""
    webdriver = pytest.importorskip("selenium.webdriver", reason="no browser test without selenium: pip install -e '.[dev]'")
    from selenium.webdriver.chrome.service import Service

    browser, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if browser is None or driver is None:
        pytest.skip("no browser test without Chromium and its driver: apt-get install chromium chromium-driver")
    options = webdriver.ChromeOptions()
    options.binary_location = browser
    for flag in ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--window-size=1280,800"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    return webdriver.Chrome(options=options, service=Service(driver))
