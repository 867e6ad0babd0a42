"""Captions, alt texts and computed texts are the same code for every model: a literal states a result only where a
condition has chosen it."""

import ast
from pathlib import Path

import pytest
from test_no_typed_results import OPEN, RESULT

import twotowers

PACKAGE = Path(twotowers.__file__).parent
PAGES = sorted([*PACKAGE.glob("chapters/*/*page.py"), *PACKAGE.glob("*/page.py"), *PACKAGE.glob("publishing/f*.py")])
ALLOWED = (
    "All parts of the residual together make up 100%",  # an identity
    "at -100% everything that the answer needs stands there, at 100% it has left",  # a scale
)
CHOOSING = (ast.If, ast.IfExp, ast.Dict, ast.comprehension, ast.Compare)


def literals(tree):
    """Text literals that no condition chooses, with what is computed within them as `…`."""
    returned = {id(part) for node in ast.walk(tree) for part in _after_a_choice(node)}

    def walk(node, chosen):
        chosen = chosen or isinstance(node, CHOOSING) or id(node) in returned
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            return  # a docstring
        if isinstance(node, ast.JoinedStr):
            if not chosen:
                yield "".join(str(p.value) if isinstance(p, ast.Constant) else "…" for p in node.values)
            for part in node.values:
                if isinstance(part, ast.FormattedValue):
                    yield from walk(part.value, chosen)
            return
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and not chosen:
            yield node.value
        for part in ast.iter_child_nodes(node):
            yield from walk(part, chosen)

    yield from walk(tree, False)


def _after_a_choice(node):
    """Statements of a function behind an `if` that returns: they are chosen by it, too."""
    body = getattr(node, "body", [])
    if isinstance(node, ast.FunctionDef):
        for number, statement in enumerate(body):
            if isinstance(statement, ast.If) and isinstance(statement.body[-1], ast.Return):
                return body[number + 1 :]
    return []


def typed(source):
    sentences = [text for text in literals(ast.parse(source)) if " " in text and not any(x in text for x in ALLOWED)]
    return [text for text in sentences if RESULT.search(text) and not OPEN.search(text)]


@pytest.mark.parametrize("file", PAGES, ids=lambda file: "-".join(file.parts[-2:]))
def test_no_literal_of_a_page_states_a_result_by_itself(file):
    assert typed(file.read_text(encoding="utf-8")) == []


@pytest.mark.parametrize(
    "text", ["Of the two, neither is negligible.", "Accuracy falls to {x:.0%}.", "It clearly rises."]
)
def test_a_literal_that_states_one_is_found_unless_it_was_chosen(text):
    assert typed(f"def caption(x):\n    return f'{text}'")
    assert not typed(f"def caption(x):\n    return f'{text}' if x > 0 else ''")
    assert not typed(f"def caption(x):\n    if x > 0:\n        return ''\n    return f'{text}'")
