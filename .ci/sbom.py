"""Take the places of this machine out of a bill of materials (CycloneDX), such as where an editable install lies.

python .ci/sbom.py FILE
"""

from __future__ import annotations

import json
import sys
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


def _is_place(part: Any) -> bool:
    return isinstance(part, dict) and str(part.get("url", "")).startswith(LOCAL)


if __name__ == "__main__":
    file = Path(sys.argv[1])
    bill = without_places(json.loads(file.read_text(encoding="utf-8")))
    file.write_text(json.dumps(bill, indent=2, sort_keys=True) + "\n", encoding="utf-8")
