"""Figures as inline SVG in the page's text colour, so that one figure works in light and dark mode."""

from __future__ import annotations

import io
import re
from html import escape

import matplotlib as mpl
from cycler import cycler
from matplotlib.figure import Figure

RED, BLUE, GREEN, YELLOW, GREY = "#CC5588", "#4488CC", "#33A078", "#B8A030", "#888888"  # legible on white and on slate
STYLE = {
    "axes.grid": True,
    "axes.prop_cycle": cycler(color=(RED, BLUE, GREEN, YELLOW, GREY)),
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlesize": 10,
    "figure.constrained_layout.use": True,
    "font.size": 9,
    "grid.alpha": 0.15,
    "grid.color": "#000000",
    "legend.fontsize": 8,
    "legend.frameon": False,
}


def svg(figure: Figure, alt: str) -> str:
    """The figure as HTML; ``alt`` describes it for readers who cannot see it."""
    buffer = io.StringIO()
    with mpl.rc_context({"svg.hashsalt": alt}):  # the same bytes for the same figure
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    text = re.sub(r"<metadata>.*?</metadata>", "", buffer.getvalue(), flags=re.DOTALL)
    drawing = text[text.index("<svg") :].replace("#000000", "currentColor")
    return f'<div class="drawing" role="img" aria-label="{escape(alt)}">{drawing}</div>'
