"""`--load`: people's own code, imported so that what it registers (`@model`, `@data`, `@client`, `@strategy`) is known here."""

import importlib
import importlib.util
import sys
from collections.abc import Iterable
from pathlib import Path
from traceback import extract_tb

from olearning.errors import USAGE, Trouble


def load_code(names: Iterable[str] | None) -> None:
    """Import each: a `.py` file by its path, or a module by its name, also from the folder we run in. Raises `Trouble` that says
    what is wrong with it, and in which line.

    A file is the module of its name, so that processes which train beside this one can import it, too: its folder is searched
    after all others, and one whose name is taken is refused. It finds what lies beside it.
    """
    for name in names or ():
        path = Path(name).resolve()
        is_file = name.endswith(".py") or "/" in name
        if is_file and not (path.suffix == ".py" and path.is_file()):
            raise Trouble(f"--load {name}: there is no such .py file", USAGE)
        folder = str(path.parent if is_file else Path.cwd())
        if folder not in sys.path:
            sys.path.append(folder)
        importlib.invalidate_caches()
        if is_file and (other := _other(path)):
            raise Trouble(f"--load {name}: {other} has that name already: give the file another", USAGE)
        try:
            importlib.import_module(path.stem if is_file else name)
        except (Exception, SystemExit) as e:
            raise Trouble(f"--load {name}: {_words(e, name)}", USAGE) from e


def own(names: list[str] | None) -> tuple[str, ...]:
    """What a role is given to load, loaded here too: what is wrong with it ends the command before anything else is done."""
    load_code(names)
    return tuple(names or ())


def _other(path: Path) -> str:
    """What is imported by the name of this file if it is not this file, or ""."""
    try:
        found = importlib.util.find_spec(path.stem)
    except (ImportError, ValueError):  # a name with dots, or one of Python's own
        found = None
    origin = found.origin or path.stem if found else f"a module {path.stem}"
    return "" if found and found.origin and Path(found.origin).resolve() == path else origin


def _words(e: BaseException, name: str) -> str:
    if isinstance(e, ModuleNotFoundError) and e.name and (name == e.name or name.startswith(f"{e.name}.")):
        return f"there is no module {name} in this environment or folder; a file ends in .py"
    if isinstance(e, SyntaxError):
        return f"it is not Python: {e.msg} ({e.filename}, line {e.lineno})"
    frames = [f for f in extract_tb(e.__traceback__) if not f.filename.startswith("<frozen") and f.filename != __file__]
    where = f" ({frames[-1].filename}, line {frames[-1].lineno})" if frames else ""
    what = f"{e.name} is not installed" if isinstance(e, ModuleNotFoundError) and e.name else f"{type(e).__name__}: {e}"
    return what + where
