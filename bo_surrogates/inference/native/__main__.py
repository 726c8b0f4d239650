"""Say whether there are compiled kernels, and where it comes from.

python -m bo_surrogates.inference.native
"""

from __future__ import annotations

import shlex
import sys

from bo_surrogates.inference.native.library import (
    KERNEL,
    RECURSION,
    UnavailableError,
    cache_folder,
    find_compiler,
    load,
)


def main() -> int:
    """0 if there is one, 1 otherwise."""
    try:
        compiler = find_compiler()
        for source in (KERNEL, RECURSION):
            load(compiler, source=source)
    except UnavailableError as reason:
        print(f"no compiled kernel: {reason}")
        return 1
    print(f"compiled by {shlex.join(compiler)}, kept in {cache_folder()}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
