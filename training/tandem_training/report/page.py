"""The frame of a report page and its small building blocks, all inline."""

import base64
import io
from collections.abc import Collection, Sequence
from html import escape
from importlib.resources import files
from pathlib import Path

from matplotlib.figure import Figure
from PIL import Image

STYLE = files(__package__).joinpath("style.css").read_text(encoding="utf-8")


def page(title: str, lead: str, sections: Sequence[tuple[str, str]], foot: str) -> str:
    """A whole page; section bodies are HTML, everything else is text."""
    parts = [f"<h2>{escape(heading)}</h2>\n{body}" for heading, body in sections]
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title>'
        f'<meta name="viewport" content="width=device-width, initial-scale=1"><style>{STYLE}</style></head>\n<body>'
        f'<h1>{escape(title)}</h1><p class="soft">{escape(lead)}</p>\n'
        + "\n".join(parts)
        + f'\n<p class="soft">{escape(foot)}</p></body></html>\n'
    )


def table(head: Sequence[str], rows: Sequence[Sequence[str]], numeric: Collection[int] = ()) -> str:
    """A table of text cells; the columns ``numeric`` are right-aligned and do not wrap."""

    def cells(tag: str, values: Sequence[str]) -> str:
        return "".join(
            f"<{tag}{' class=n' if index in numeric else ''}>{escape(value)}</{tag}>"
            for index, value in enumerate(values)
        )

    body = "".join(f"<tr>{cells('td', row)}</tr>" for row in rows)
    return f"<table><thead><tr>{cells('th', head)}</tr></thead><tbody>{body}</tbody></table>"


def loop(stations: Sequence[tuple[str, str, str]]) -> str:
    """The stations of the loop in order: (name, figure, note)."""
    items = "".join(
        f'<li><b>{escape(name)}</b><span class="big">{escape(figure)}</span><br>'
        f'<span class="soft">{escape(note)}</span></li>'
        for name, figure, note in stations
    )
    return f'<ol class="loop">{items}</ol>'


def row(figures: Sequence[str]) -> str:
    """Figures beside each other, wrapping."""
    return f'<div class="row">{"".join(figures)}</div>'


def picture(source: bytes, kind: str, caption: str, width: int | None = None) -> str:
    """An image file's bytes as a figure; ``kind`` is the MIME subtype (png, gif)."""
    size = f' width="{width}"' if width else ""
    data = base64.b64encode(source).decode()
    return (
        f'<figure><img class="pixel" alt="{escape(caption, quote=True)}"{size} src="data:image/{kind};base64,{data}">'
        f"<figcaption>{escape(caption)}</figcaption></figure>"
    )


def film(path: Path, caption: str, width: int = 220) -> str:
    """An animated GIF as a figure."""
    return picture(path.read_bytes(), "gif", caption, width)


def png(image: Image.Image, caption: str, width: int | None = None) -> str:
    """A Pillow image as a figure."""
    buffer = io.BytesIO()
    image.save(buffer, "PNG", optimize=True)
    return picture(buffer.getvalue(), "png", caption, width)


def svg(figure: Figure) -> str:
    """A matplotlib figure as inline SVG, the same bytes every time."""
    from matplotlib import rc_context

    buffer = io.StringIO()
    with rc_context({"svg.hashsalt": "tandem", "svg.fonttype": "none"}):
        figure.savefig(buffer, format="svg", metadata={"Date": None}, transparent=True)
    text = buffer.getvalue()
    return f"<figure>{text[text.index('<svg') :]}</figure>"
