"""Look up known weaknesses of pinned packages with pip-audit, and say how many of them could be looked up.

python .ci/audit.py FILE

pip-audit alone says that nothing was found where it could look up nothing. Exit status 0: all were looked up and
nothing is known; 1: something is; 2: some could not be looked up.
"""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any


def told(dependencies: list[dict[str, Any]]) -> tuple[int, str]:
    """Exit status and sentences for what pip-audit says of each package."""
    weak = [f"{own['name']} {own['version']}: {found['id']}" for own in dependencies for found in own.get("vulns", ())]
    skipped = [own["name"] for own in dependencies if "skip_reason" in own]
    seen = f"{len(dependencies) - len(skipped)} of {len(dependencies)} packages were looked up"
    lines = [f"{seen}; {len(weak)} known weaknesses.", *weak]
    if skipped or not dependencies:
        more = f", {skipped[0]} first" if skipped else ""
        lines.append(f"Not all of them could be looked up{more}: run this where PyPI itself can be reached.")
    return (1 if weak else 2 if skipped or not dependencies else 0), "\n".join(lines)


def main(file: str) -> int:
    command = [sys.executable, "-m", "pip_audit", "--no-deps", "--disable-pip", "--progress-spinner", "off"]
    done = subprocess.run([*command, "-f", "json", "-r", file], capture_output=True, text=True)
    try:
        found = json.loads(done.stdout)["dependencies"]
    except (ValueError, KeyError):
        last = (done.stderr.strip() or "it said nothing").splitlines()[-1][:100]
        print(f"The packages could not be looked up ({last}); run this where PyPI itself can be reached.")
        return 2
    status, text = told(found)
    print(text)
    return status


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
