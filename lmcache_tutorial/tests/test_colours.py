"""The charts' colours can be told apart, by colour-blind readers too, and are seen on both themes' paper.

Colour blindness as Machado, Oliveira and Fernandes (2009) simulate it at full severity, in linear RGB; a
difference is the Euclidean distance in CIELAB (2 to 3 is just seen).
"""

import re
from importlib import resources
from itertools import combinations

import numpy as np
import pytest

from lmcache_tutorial.pages.colours import COLOURS

READERS = {
    "normal": np.eye(3),
    "protanopia": [
        [0.152286, 1.052583, -0.204868],
        [0.114503, 0.786281, 0.099216],
        [-0.003882, -0.048116, 1.051998],
    ],
    "deuteranopia": [
        [0.367322, 0.860646, -0.227968],
        [0.280085, 0.672501, 0.047413],
        [-0.011820, 0.042940, 0.968881],
    ],
    "tritanopia": [
        [1.255528, -0.076749, -0.178779],
        [-0.078411, 0.930809, 0.147602],
        [0.004733, 0.691367, 0.303900],
    ],
}
TO_XYZ = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])
WHITE = np.array([0.9505, 1.0, 1.089])
TOGETHER = [  # what may stand on one chart
    ("computed", "engine", "lmcache-l1", "lmcache-l2", "neutral", "predicted"),
    ("computed", "part-1", "part-2", "part-3"),
]
FAR, SEEN = 13, 1.8


def colours(theme: int) -> dict[str, str]:
    """The colours of the light (0) or the dark (1) theme, by name."""
    style = resources.files("lmcache_tutorial.pages").joinpath("templates", "style.html").read_text()
    blocks = re.findall(r":root \{(.*?)\}", style, re.DOTALL)
    return dict(re.findall(r"--([\w-]+):(#[0-9a-f]{6})", blocks[theme]))


def linear(colour: str):
    parts = np.array([int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)])
    return np.where(parts <= 0.04045, parts / 12.92, ((parts + 0.055) / 1.055) ** 2.4)


def lab(light):
    xyz = TO_XYZ @ np.clip(light, 0, 1) / WHITE
    f = np.where(xyz > 0.008856, np.cbrt(xyz), 7.787 * xyz + 16 / 116)
    return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])


@pytest.mark.parametrize("theme", [0, 1], ids=["light", "dark"])
@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("together", TOGETHER, ids=["sources", "parts"])
def test_colours_on_one_chart_differ_for_every_reader(theme, reader, together):
    found = colours(theme)
    seen = {name: lab(np.array(READERS[reader]) @ linear(found[name])) for name in together}
    for one, other in combinations(together, 2):
        assert np.linalg.norm(seen[one] - seen[other]) > FAR, (one, other)


@pytest.mark.parametrize("theme", [0, 1], ids=["light", "dark"])
def test_colours_are_seen_on_the_paper(theme):
    found = colours(theme)
    paper = linear(found["card"]) @ TO_XYZ[1]
    for name in {name for names in TOGETHER for name in names}:
        low, high = sorted((paper, linear(found[name]) @ TO_XYZ[1]))
        assert (high + 0.05) / (low + 0.05) > SEEN, name


def test_every_key_of_a_chart_has_its_colour_in_both_themes():
    for theme in (0, 1):
        assert {key.replace("_", "-") for key in COLOURS} <= set(colours(theme))
