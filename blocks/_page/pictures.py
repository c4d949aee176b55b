"""The view of pictures: sent, decoded without a diffusion model, received, with their captions, and the last ones."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from html import escape
from typing import Any

from bokeh.layouts import column
from bokeh.models import Div, InlineStyleSheet

from blocks._page.history import History
from blocks._page.look import Look, View

KINDS = {"sent": "sent", "plain": "decoded as it came", "received": "received"}
STRIP = 8  # frames of the strip

CSS = """
:host { color: var(--ink); font: 12px/1.35 var(--font); display: block; overflow: hidden; }
.bk-clearfix { position: absolute; inset: 0; display: flex !important; flex-direction: column; gap: 8px; }
.bk-clearfix::before { content: none; }
.frame { flex: 1; display: flex; gap: 10px; min-height: 0; }
figure { margin: 0; flex: 1 1 0; min-width: 0; min-height: 0; display: flex; flex-direction: column; }
figure img { flex: 1 1 0; min-height: 0; width: 100%; object-fit: contain; object-position: top left; }
figcaption { color: var(--faint); font-size: 11px; margin-bottom: 3px; }
.words { flex: 1.4 1 0; min-width: 0; overflow: auto; }
h3 { font-size: 13px; margin: 0 0 3px; white-space: nowrap; overflow: hidden; text-overflow: ellipsis; }
p { margin: 0 0 5px; }
p b { display: block; font-weight: normal; color: var(--faint); font-size: 11px; }
del, ins { text-decoration: none; background: var(--mark); border-radius: 3px; padding: 0 2px; }
del { text-decoration: line-through; }
.facts { color: var(--faint); display: flex; flex-wrap: wrap; gap: 0 12px; }
.alarm { color: var(--alarm); }
.strip { display: flex; gap: 6px; overflow: hidden; height: 44px; }
.strip span { display: flex; flex: none; } .strip img { height: 44px; width: 44px; object-fit: cover; }
.none { color: var(--faint); margin: auto; }
"""
PROGRESS_CSS = ":host { font: 12px/16px var(--font); color: var(--faint); }"


class PictureView(View):
    """The newest frame large, beside what was sent with it; those before in a strip; how far the next ones are."""

    name, title, width = "pictures", "Pictures", 2

    def __init__(self) -> None:
        self.seen: object = None

    def make(self, look: Look) -> None:
        """Make room for pictures and words."""
        waiting = '<div class="none">the first picture is under way</div>'
        self.pictures, self.progress = (
            Div(text=text, disable_math=True, stylesheets=[InlineStyleSheet(css=css)], margin=0, **size)
            for text, css, size in (
                (waiting, CSS, {"sizing_mode": "stretch_both"}),
                ("", PROGRESS_CSS, {"sizing_mode": "stretch_width", "height": 16}),
            )
        )
        self.root = column(self.pictures, self.progress, sizing_mode="stretch_both", spacing=4)

    def update(self, history: History) -> None:
        """Show what is new."""
        steps = [f"{name}: step {k} of {of}" for name, (k, of) in history.report.get("progress", {}).items()]
        if (text := escape(" · ".join(steps))) != self.progress.text:
            self.progress.text = text
        rows = {row["frame"]: row for row in history.report["frames"]}
        frames = history.frames_received()
        whole = list(frames)
        if not whole:
            return
        told = (number for number in reversed(whole) if rows.get(number, {}).get("status"))
        newest = next(told, whole[-1])  # a picture comes a moment before what is told of it
        seen = (len(history.pictures), newest, rows.get(newest))
        if seen == self.seen:
            return
        self.seen = seen
        strip = "".join(
            f'<span title="frame {number}">{_images(frames[number], ("sent", "received"))}</span>'
            for number in [each for each in whole if each < newest][-STRIP:]
        )
        large = "".join(
            f"<figure><figcaption>{label}</figcaption>{_images(frames[newest], (kind,))}</figure>"
            for kind, label in KINDS.items()
            if kind in frames[newest]
        )
        words = f'<div class="words">{_words(newest, rows.get(newest, {}))}</div>'
        below = f'<div class="strip">{strip}</div>' if strip else ""
        self.pictures.text = f'<div class="frame">{large}{words}</div>{below}'


def _images(kinds: Mapping[str, str], wanted: tuple[str, ...]) -> str:
    return "".join(
        f'<img src="pictures/{kinds[kind].removeprefix("images/")}" alt="{kind}">' for kind in wanted if kind in kinds
    )


def _words(frame: int, row: Mapping[str, Any]) -> str:
    """Return what is known of a frame, as HTML."""
    facts = [row["mode"]] if row.get("mode") else []
    facts += [f"{row['steps']} step{'s' * (row['steps'] != 1)}"] if row.get("steps") is not None else []
    facts += [f"PSNR {row['psnr']:.1f} dB"] if row.get("psnr") is not None else []
    facts += [f"SSIM {row['ssim']:.2f}"] if row.get("ssim") is not None else []
    facts += [f"BER {row['ber']:.2g}"] if row.get("ber") is not None else []
    parts = [f"<h3>frame {frame} {escape(row.get('name') or '')}</h3>"]
    parts.append(f'<p class="facts">{"".join(f"<span>{escape(each)}</span>" for each in facts)}</p>')
    sent, received = row.get("caption_sent"), row.get("caption_received")
    before, after = marked(sent or "", received or "")
    if sent and sent == received:
        parts.append(f"<p><b>caption, received as it was sent</b>{after}</p>")
    else:
        parts += [f"<p><b>caption sent</b>{before}</p>"] if sent else []
        parts += [f"<p><b>caption received</b>{after}</p>"] if received else []
    if row.get("status") not in (None, "ok"):
        reason = f": {row['reason']}" if row.get("reason") else ""
        parts.append(f'<p class="alarm">{escape(row["status"] + reason)}</p>')
    return "".join(parts)


def marked(sent: str, received: str) -> tuple[str, str]:
    """Return two captions as HTML in which words that differ are marked.

    >>> marked("a dog & a cat", "a dog & a hat")
    ('a dog &amp; a <del>cat</del>', 'a dog &amp; a <ins>hat</ins>')
    """
    before, after = sent.split(), received.split()
    out: tuple[list[str], list[str]] = ([], [])
    for kind, a, b, c, d in difflib.SequenceMatcher(None, before, after, autojunk=False).get_opcodes():
        for words, part, tag in ((before[a:b], out[0], "del"), (after[c:d], out[1], "ins")):
            text = escape(" ".join(words))
            if text:
                part.append(text if kind == "equal" else f"<{tag}>{text}</{tag}>")
    return " ".join(out[0]), " ".join(out[1])
