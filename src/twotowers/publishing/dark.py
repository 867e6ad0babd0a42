"""Pictures for dark pages: the same SVG, which takes other colours when its address ends in `#dark`.

A style sheet is added to the file; programs that know nothing of it show the picture as it was drawn.
"""

from __future__ import annotations

import colorsys
import re

from .style import DARK

ADDRESS = "dark"  # the fragment
_COLOUR = re.compile(r"\b(fill|stroke): (#[0-9a-f]{6})")
_MARKER = re.compile(r'(<path id="m[0-9a-f]+" d="[^"]*" style=")stroke: #[0-9a-f]{6}(?:; )?')


def with_dark(svg: str) -> str:
    """The text of a picture with the rules for dark pages."""
    svg = _MARKER.sub(r"\1", svg)  # no rule reaches a marker's own colour; without one it takes that of each use of it
    used = sorted(set(_COLOUR.findall(svg)))
    rules = [f':target [style*="{what}: {colour}"]{{{what}:{dark(colour)}!important}}' for what, colour in used]
    sheet = "\n".join(["<defs>", '  <style type="text/css">', *rules, "  </style>"])
    return svg.replace("<svg ", f'<svg id="{ADDRESS}" ', 1).replace("<defs>", sheet, 1)


def dark(colour: str) -> str:
    """The counterpart of a colour: of one without a role, that of the same hue which is as light as it is dark."""
    if colour in DARK:
        return DARK[colour]
    red, green, blue = (int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5))
    hue, light, saturation = colorsys.rgb_to_hls(red, green, blue)
    darkest = 0.1  # the page's
    turned = colorsys.hls_to_rgb(hue, darkest + (1 - darkest) * (1 - light), saturation)
    return "#" + "".join(f"{round(255 * part):02x}" for part in turned)
