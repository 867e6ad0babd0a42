"""Take the places of this machine out of a bill of materials (CycloneDX), such as where an editable install lies, and
say the licence of every package that is installed here and whose licence is not said.

python .ci/sbom.py FILE
"""

from __future__ import annotations

import json
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

LOCAL = ("file:", "/", "\\")


def without_places(part: Any) -> Any:
    """The same without references to files of this machine, and without lists of references that are then empty."""
    if isinstance(part, list):
        return [without_places(own) for own in part if not _is_place(own)]
    if isinstance(part, dict):
        kept = {name: without_places(own) for name, own in part.items()}
        return {name: own for name, own in kept.items() if name != "externalReferences" or own}
    return part


def with_licence(component: dict[str, Any]) -> dict[str, Any]:
    """The same with its licence, where a package says it in words of its own, or by a file alone.

    Raises:
        SystemExit: it is said nowhere.
    """
    if component.get("licenses"):
        return component
    name = component["name"]
    if said := licence(name):
        return component | {"licenses": [{"license": {"acknowledgement": "declared", "name": said}}]}
    raise SystemExit(f"{name} says no licence; look it up, and say it here.")


def licence(name: str) -> str | None:
    """The first line that an installed package says of its licence."""
    package = metadata.distribution(name)
    said: list[str | None] = list(package.metadata.get_all("License") or [])
    said += [package.read_text(f"{place}{file}") for file in package.metadata.get_all("License-File") or []
             for place in ("licenses/", "")]  # fmt: skip
    lines = [line.strip() for text in said if text for line in text.splitlines()]
    return next(filter(None, lines), None)


def _is_place(part: Any) -> bool:
    return isinstance(part, dict) and str(part.get("url", "")).startswith(LOCAL)


if __name__ == "__main__":
    file = Path(sys.argv[1])
    bill = without_places(json.loads(file.read_text(encoding="utf-8")))
    bill["components"] = [with_licence(component) for component in bill["components"]]
    file.write_text(json.dumps(bill, indent=2, sort_keys=True) + "\n", encoding="utf-8")
