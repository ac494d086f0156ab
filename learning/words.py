"""What of an error may leave a device. Most errors of training are raised with a device's data at hand, by code of anybody's: what
they say may quote it ("Target 12 is out of bounds", "bad sample [0.3, …]"), and what leaves goes to a topic that others read.
"""

import traceback
from pathlib import Path


class Plain(ValueError):
    """An error that says names, shapes and what to do, and no value of anybody's data."""


def said(e: BaseException) -> str:
    """Why something failed, for others: a `Plain` error's own words; of any other its kind, and where in whose code it was."""
    if isinstance(e, Plain):
        return str(e)
    steps = [(frame.f_code.co_filename, line) for frame, line in traceback.walk_tb(e.__traceback__)]
    own = [(file, line) for file, line in steps if "site-packages" not in file]
    where = f" at {Path(own[-1][0]).name}:{own[-1][1]}" if own else ""
    return f"{type(e).__name__}{where} (what it says stays on the device, since it may quote its data)"
