"""Write the pages of docs/ that are made from the code, or say how they differ from it (--check)."""

from __future__ import annotations

import difflib
import sys
from pathlib import Path

from documents import documents
from failures import failures
from reference import reference

DOCS = Path(__file__).parent.parent / "docs"


def main() -> int:
    status = 0
    for name, made in (("reference.md", reference()), ("json.md", documents()), ("failures.md", failures())):
        page = DOCS / name
        kept = page.read_text() if page.exists() else ""
        if kept == made:
            continue
        if sys.argv[1:] != ["--check"]:
            page.write_text(made)
            print(f"wrote docs/{name}")
            continue
        print(
            "\n".join(difflib.unified_diff(kept.splitlines(), made.splitlines(), f"docs/{name}", "made", lineterm=""))
        )
        print(f"docs/{name} is not what the code says: run scripts/docs.", file=sys.stderr)
        status = 1
    return status


if __name__ == "__main__":
    sys.exit(main())
