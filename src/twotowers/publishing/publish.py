"""What a page shows: figures and computed texts, as pure functions of stored results.

A `Figure` or `Text` is written once, in the `page` of its chapter. Whatever it is made of, tables and a few values, is
stored first, at full precision, and drawn from what was stored. So a page can be drawn anew without a model.
"""

from __future__ import annotations

import dataclasses
import inspect
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.figure import Figure as Drawing
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from .citing import FORMATS
from .compact import compact
from .dark import with_dark
from .glyphs import drawable, short
from .markdown import fenced, option
from .plots import folded
from .record import inside
from .style import WIDTH, styled

PICTURES = ("svg", "png", "pdf")  # of a figure, beside its numbers as CSV and its record as JSON


@dataclass(frozen=True)
class Facts:
    """What a caption may say of a run beside its results.

    Attributes:
        run: the run's name, which anchors begin with; `title` is what a reader is told.
        model, family, template: as in the provenance; `rotary`: whether positions enter q·k
            alone, be it by a rotation, and are not embedded.
        labels: of a prompt, two or more, in sorted order.
        n_layers, n_heads: of the model; heads of one layer.
        scale, selection_sets, evaluation_sets, shots, queries, draws: as in `study.Scale`.
        task, account: the task's name, and what it says of itself.
        provenance: what exactly was run, for a figure's record.
    """

    run: str
    title: str
    model: str
    family: str
    template: str
    rotary: bool
    labels: tuple[str, ...]
    n_layers: int
    n_heads: int
    scale: str
    selection_sets: int
    evaluation_sets: int
    shots: int
    queries: int
    draws: int
    seed: int
    task: str
    account: str
    provenance: Mapping[str, Any]

    @classmethod
    def read(cls, record: Mapping[str, Any]) -> Facts:
        """From what `dataclasses.asdict` made of them, written as JSON and read again."""
        return cls(**{**record, "labels": tuple(record["labels"])})

    @property
    def half(self) -> int:
        """The first layer of the deep half."""
        return -(-self.n_layers // 2)

    @property
    def chance(self) -> float:
        """Of accuracy between the labels."""
        return 1 / len(self.labels)

    @property
    def between(self) -> str:
        """Of which labels one is the most likely, in words."""
        return "between the two labels" if len(self.labels) == 2 else f"between the {len(self.labels)} labels"

    @property
    def against(self) -> str:
        """What a margin takes off the right label's logit, in words."""
        return "the other's" if len(self.labels) == 2 else "the mean of the others'"

    @property
    def exchanged(self) -> str:
        """To which label or class an exchange leads, and which one its margin is against, in a word."""
        return "other" if len(self.labels) == 2 else "next"

    @property
    def all_heads(self) -> int:
        return self.n_layers * self.n_heads


@dataclass(frozen=True)
class Figure:
    """A figure of a page.

    Its functions take, by name, what they need of the results that are shown, and `facts`.

    Attributes:
        id: stable; anchors, files and citations name it.
        draw: gives the drawing.
        caption: what is compared, with numbers that were computed; MyST Markdown.
        alt: what the picture shows, for those who cannot see it; plain text.
    """

    id: str
    draw: Callable[..., Drawing]
    caption: Callable[..., str]
    alt: Callable[..., str]


@dataclass(frozen=True)
class Text:
    """A computed text of a page: `write` takes, by name, what it needs of the results, and `facts`; MyST Markdown."""

    id: str
    write: Callable[..., str]


def call(function: Callable[..., Any], facts: Facts, inputs: Mapping[str, Any]) -> Any:
    """Call a function of a `Figure` or `Text` with those of the results, and `facts`, that it names.

    Raises:
        TypeError: it names something that is not there.
    """
    names = inspect.signature(function).parameters
    return function(**{name: value for name, value in {"facts": facts, **inputs}.items() if name in names})


def figure_of(figure: Figure, facts: Facts, inputs: Mapping[str, Any]) -> tuple[Drawing, str, str]:
    """The drawing, caption and alt text, the texts on one line each."""
    caption, alt = (" ".join(call(words, facts, inputs).split()) for words in (figure.caption, figure.alt))
    return drawn(figure, facts, inputs), caption, alt


def drawn(figure: Figure, facts: Facts, inputs: Mapping[str, Any], *, width: float = WIDTH) -> Drawing:
    """The drawing, in inches as wide as is asked for, unless it is one that needs its width."""
    with styled(width):
        names = short(facts.labels)
        seen = dataclasses.replace(facts, labels=tuple(drawable([*facts.labels], names)))
        drawing: Drawing = call(figure.draw, seen, drawable(dict(inputs), names))
        if is_narrow(drawing):
            folded(drawing)
        return drawing


def is_narrow(drawing: Drawing) -> bool:
    """Whether a drawing is for a narrow place."""
    return bool(drawing.get_figwidth() < WIDTH)


def write_figure(stem: Path, drawing: Drawing, *, caption: str, alt: str, record: Mapping[str, Any]) -> None:
    """Write `<stem>.svg|.png|.pdf|.json`; the numbers beside them are written with the results.

    Args:
        record: the figure's provenance (`record.figure_record`), which goes into each of the files.
    """
    stem.parent.mkdir(parents=True, exist_ok=True)
    with styled(), mpl.rc_context({"svg.hashsalt": stem.name, "figure.constrained_layout.use": False}):
        for ending, said in inside(record).items():
            drawing.savefig(stem.with_name(f"{stem.name}.{ending}"), metadata=said, dpi=200 if ending == "png" else 72)
            drawing.set_layout_engine(None)  # each file has its parts where the first has them
    vectors = stem.with_name(f"{stem.name}.svg")
    vectors.write_text(compact(with_dark(vectors.read_text(encoding="utf-8"))), encoding="utf-8")
    _with_palette(stem.with_name(f"{stem.name}.png"))
    whole = {"caption": caption, "alt": alt, "provenance": record}
    stem.with_name(f"{stem.name}.json").write_text(json.dumps(whole, indent=1) + "\n", encoding="utf-8")


def write_narrow(stem: Path, drawing: Drawing) -> None:
    """Write `narrow_file(stem)`, the form of a figure for narrow places: nothing of one that needs its width."""
    if not is_narrow(drawing):
        return
    file = Path(narrow_file(str(stem)))
    file.parent.mkdir(parents=True, exist_ok=True)
    with styled(), mpl.rc_context({"svg.hashsalt": file.stem}):
        drawing.savefig(file, metadata={"Date": None})
    file.write_text(compact(with_dark(file.read_text(encoding="utf-8"))), encoding="utf-8")


def narrow_file(stem: str) -> str:
    """The picture for narrow places of the figure whose files begin with `stem`."""
    return f"{stem}-narrow.svg"


def _with_palette(file: Path) -> None:
    """Keep a PNG in 256 colours, which takes less than half of its bytes; its record stays inside."""
    with Image.open(file) as picture:
        kept, resolution = PngInfo(), picture.info["dpi"]
        for name, said in picture.info.items():
            if isinstance(said, str):
                kept.add_itxt(str(name), said)
        small = picture.convert("RGB").quantize(256, dither=Image.Dither.NONE)
    small.save(file, pnginfo=kept, dpi=resolution, optimize=True)


def figure_text(stem: str, caption: str, alt: str, record: Mapping[str, Any]) -> str:
    """MyST text that shows the figure whose files begin with `stem`, with its anchor, its files, and how to cite it."""
    name, folder = Path(stem).name, Path(stem).parent
    links = [f"{{download}}`{ending} <{stem}.{ending}>`" for ending in PICTURES]
    for file in record["data"]:
        if file.endswith(".csv"):
            part = Path(file).stem.removeprefix(name).strip("-")
            links.append(f"{{download}}`csv{f' ({part})' if part else ''} <{folder / file}>`")
    links.append(f"{{download}}`json <{stem}.json>`")
    return (
        f"```{{figure}} {stem}.svg\n:name: {record['anchor']}\n:alt: {option(alt)}\n\n{caption}\n```\n\n"
        f":::{{div}} figure-files\n`{record['figure']}` · {' · '.join(links)}\n:::\n\n{_cite(record)}"
    )


def _cite(record: Mapping[str, Any]) -> str:
    """What opens under a figure: how it is cited, ready to be copied, a tab for each format."""
    tabs = [
        f"::::{{tab-item}} {title}\n:sync: {name}\n\n{fenced(write(record))}\n::::"
        for name, (title, write) in FORMATS.items()
    ]
    opened = ":::::::{dropdown} Cite this figure\n:class-container: figure-cite\n:animate: fade-in"
    listed = "\n".join([":::::{tab-set}", ":sync-group: cite", "", *tabs, ":::::"])
    return f"{opened}\n\n{listed}\n\nWhat these fields say: [how to cite a figure](#cite-figure).\n:::::::"
