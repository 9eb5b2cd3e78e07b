"""The vocabulary of sites: one table for what is captured, what interventions write, and what the documents name."""

from __future__ import annotations

from pathlib import Path
from typing import get_args

import pytest

from openmav.backends.sites import EDITABLE, SITE_KINDS, SITES, Site, SiteName, site_of, spelled
from openmav.errors import UsageError
from openmav.plugins import registry
from openmav.settings import interventions

DOCS = Path(__file__).parents[2] / "docs"


def test_each_site_has_one_row() -> None:
    names = [kind.name for kind in SITE_KINDS if kind.name]
    edits = [kind.edits for kind in SITE_KINDS if kind.edits]
    assert sorted(names) == sorted(SITES)
    assert sorted(edits) == sorted(get_args(SiteName)) == sorted(EDITABLE)
    assert all(kind.words and kind.depends_on in SITES for kind in EDITABLE.values())


@pytest.mark.parametrize("site", get_args(SiteName))
def test_what_is_written_reads_back_as_the_site(site: SiteName) -> None:
    index = 12 if EDITABLE[site].indexed else None
    written = spelled(site, 3, index)
    kind, value = ("patch", "=text") if site != "layer" else ("ablate", "")
    parsed = interventions.parse(f"{kind} {written}{value}")
    assert site_of(parsed) == Site(3, site, index)
    assert str(Site(3, site, index)) == parsed.place == written


@pytest.mark.parametrize("kind", ["ablate", "amplify"])
def test_the_residual_stream_is_patched_only(kind: str) -> None:
    value = "=2" if kind == "amplify" else ""
    with pytest.raises(UsageError, match="known: H3"):
        interventions.parse(f"{kind} L3.resid{value}")
    for site in get_args(SiteName):
        if not EDITABLE[site].patch_only:
            assert interventions.parse(f"{kind} {spelled(site, 3, 1)}{value}").site == site


def test_every_measure_needs_sites_that_there_are() -> None:
    known = SITES | {"head.logits", "head.direction", "head.neurons"}
    needed = {need for name in registry.names("measures") for need in registry.load("measures", name).NEEDS}
    assert needed <= known
    assert len(needed) > 8


def test_the_page_for_plug_ins_names_them_all() -> None:
    text = (DOCS / "plugins.md").read_text(encoding="utf-8")
    assert [name for name in sorted(SITES) if f"`{name}`" not in text] == []
