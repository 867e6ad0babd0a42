"""The page on which a reader looks into single heads: the numbers of a run, written so that a script can show them.

Without scripts it has a table of the first prompt in the first head, beside the figure `towers-explore`.
"""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pandas as pd
from scipy.special import expit

from ...publishing.markdown import escape
from ...publishing.publish import Facts
from ...publishing.style import DARK, label_looks
from ...publishing.wording import NOT_KNOWN
from .exchange_page import ROWS
from .exchanging import CHOSEN, INTACT
from .explore import MOVED_WEIGHTS
from .explore_page import margins_of, rows_of, visible

NUMBERS = ("weight", *MOVED_WEIGHTS.values(), "score", "value", "moved")  # of each label position, in this order
MARGIN = "Margin in logits, right label minus the other, and the right label's probability between the two"
OTHERS = "the others"  # of more than two labels, what a value speaks for that speaks against its own
HEADINGS = {
    "line": "prompt",
    "weight": "attention",
    "score": "q·k",
    "value": "value says",
    "moved": "moves the margin by",
}


def data(
    facts: Facts,
    roles: pd.DataFrame,
    prompts: pd.DataFrame,
    tokens: pd.DataFrame,
    labels: pd.DataFrame,
    exchanged: pd.DataFrame,
) -> dict[str, Any]:
    """The results of `explore.explore` as JSON, nested by prompt and head; what is no number is null.

    Raises:
        ValueError: a label of a prompt lacks its numbers.
    """
    heads = list(roles["head"])

    def of(prompt: Any) -> dict[str, Any]:
        own = rows_of(tokens, prompt)
        shown = {head: rows_of(labels, prompt, head) for head in heads}
        if any(len(rows) != (own["kind"] == "label").sum() for rows in shown.values()):
            raise ValueError("a label of a prompt lacks its numbers")
        lines = [[visible(text), label] for text, label in shown[heads[0]][["text", "label"]].to_numpy()]
        return {
            **{name: visible(prompt[name]) for name in ("text", "label", "towards", "other", "same")},
            "tokens": [
                [visible(token), line, kind]
                for token, line, kind in own[["token", "demonstration", "kind"]].itertuples(index=False)
            ],
            "lines": lines,
            "weights": {head: _plain(own[head]) for head in heads},
            "numbers": {head: [_plain(row) for row in rows[list(NUMBERS)].to_numpy()] for head, rows in shown.items()},
            "margins": {
                name: dict(zip(made, _plain(made.values()), strict=True))
                for name, made in margins_of(exchanged, prompt).items()
            },
        }

    return {
        "labels": list(facts.labels),
        "others": OTHERS,
        "parts": ROWS,
        "numbers": list(NUMBERS),
        "moved_weights": MOVED_WEIGHTS,
        "heads": roles.to_dict("records"),
        "intact": INTACT,
        "together": CHOSEN,
        "prompts": [of(prompt) for _, prompt in prompts.iterrows()],
    }


def widget(given: dict[str, Any]) -> str:
    """HTML of the page's part that a script makes live, from `data`; it can stand in a page whatever texts are in it.

    In it nothing is hidden but what only a script can use.
    """
    first, head = given["prompts"][0], given["heads"][0]["head"]
    looks = enumerate(label_looks(given["labels"]))
    colours = "; ".join(f"--light-{number}: {own}; --dark-{number}: {DARK[own]}" for number, (_, own, *_) in looks)
    headings = "".join(f'<th scope="col">{words}</th>' for words in HEADINGS.values())
    caption = f"Label positions of the prompt that ends in “{_text(first['text'])}”, in head {head}"
    return f"""<div id="explore" style="{colours}">
<script type="application/json">{_json(given)}</script>
<div class="explore-controls" hidden></div>
<p class="explore-answer" aria-live="polite"></p>
<div class="explore-lines" tabindex="0" role="region" aria-label="The prompt, line by line">
<svg aria-hidden="true"></svg><table><caption>{caption}</caption>
<thead><tr>{headings}</tr></thead>
<tbody>{"".join(_line(given, line, numbers) for line, numbers in _lines(first, head))}</tbody></table></div>
<p class="explore-said" aria-live="polite"></p>
<div class="explore-margins" tabindex="0" role="region" aria-label="Margins">
<table><caption>{MARGIN}</caption>
<thead><tr><th scope="col">exchanged</th><th scope="col">head {head}</th><th scope="col">{CHOSEN}</th></tr></thead>
<tbody>{"".join(_margin(first["margins"], part, head) for part in ROWS)}</tbody></table></div>
</div>"""


def _lines(prompt: dict[str, Any], head: str) -> list[tuple[list[str], dict[str, Any]]]:
    numbers = (dict(zip(NUMBERS, row, strict=True)) for row in prompt["numbers"][head])
    return list(zip(prompt["lines"], numbers, strict=True))


def _line(given: dict[str, Any], line: list[str], numbers: dict[str, Any]) -> str:
    """A row of the table: a demonstration, and what the head does at its label."""
    text, label = line
    said = _text(says(given["labels"], label, numbers["value"]))
    cells = [
        _number(numbers["weight"], "z.1%"),
        _number(numbers["score"], "z.2f"),
        f"{said} {_number(numbers['value'], 'z.2f', size=True)}".strip(),
        _number(numbers["moved"], "+z.2f"),
    ]
    return f'<tr><th scope="row">{_text(text)}: {_text(label)}</th>{"".join(f"<td>{cell}</td>" for cell in cells)}</tr>'


def says(labels: list[str], own: str, value: float | None) -> str:
    """Which label a value speaks for, by the sign of its logit minus towards its own; nothing if for none."""
    if not value:
        return ""
    others = [label for label in labels if label != own]
    return own if value > 0 else others[0] if len(others) == 1 else OTHERS


def _margin(margins: dict[str, dict[str, float | None]], part: str, head: str) -> str:
    groups = (INTACT, INTACT) if part == "none" else (head, CHOSEN)
    made = [margins[name][part] for name in groups]
    cells = "".join(f"<td>{_number(m, 'z.2f')} ({_number(probability(m), '.1%')})</td>" for m in made)
    return f'<tr><th scope="row">{ROWS[part]}</th>{cells}</tr>'


def probability(margin: float | None) -> float | None:
    """Of the right label, between the two, from its margin in logits."""
    return None if margin is None else float(expit(margin))


def _number(value: float | None, form: str, *, size: bool = False) -> str:
    return NOT_KNOWN if value is None else format(abs(value) if size else value, form)


def _text(text: str) -> str:
    """A text from outside, that turns nothing around it."""
    return f"<bdi>{escape(text)}</bdi>" if text else ""


def _plain(values: Any) -> list[float | None]:
    return [float(x) if np.isfinite(x) else None for x in values]


def _json(value: Any) -> str:
    """JSON that can stand in a script element, inside a fence of backticks: nothing in it ends either."""
    text = json.dumps(value, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    for sign in "<>&`":
        text = text.replace(sign, f"\\u{ord(sign):04x}")
    return text
