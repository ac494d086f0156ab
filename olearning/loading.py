"""`--load`: people's own code, imported so that what it registers (`@model`, `@data`, `@client`, `@strategy`) is known here."""

import importlib
import importlib.util
import sys
from collections.abc import Iterable
from pathlib import Path
from traceback import extract_tb
from types import ModuleType

from olearning.errors import USAGE, Trouble

_loaded: dict[str, ModuleType] = {}


def load_code(names: Iterable[str] | None) -> None:
    """Import each: a `.py` file by its path, or a module by its name, also from the folder we run in. One that is loaded already
    is not loaded again. Raises `Trouble` that says what is wrong with it, and in which line.

    A file finds modules beside it, after all others: it cannot hide one of ours.
    """
    for name in names or ():
        key = str(Path(name).resolve()) if _is_file(name) else name
        if key not in _loaded:
            _loaded[key] = _load(name)


def _is_file(name: str) -> bool:
    return name.endswith(".py") or "/" in name


def _load(name: str) -> ModuleType:
    path = Path(name).resolve()
    if _is_file(name) and not path.is_file():
        raise Trouble(f"--load {name}: there is no such file", USAGE)
    folder = str(path.parent if _is_file(name) else Path.cwd())
    if folder not in sys.path:
        sys.path.append(folder)
    try:
        if not _is_file(name):
            return importlib.import_module(name)
        spec = importlib.util.spec_from_file_location(f"loaded_{path.stem}", path)
        assert spec
        assert spec.loader
        module = importlib.util.module_from_spec(spec)
        sys.modules[spec.name] = module  # dataclasses and pickle look it up there
        spec.loader.exec_module(module)
        return module
    except (Exception, SystemExit) as e:
        raise Trouble(f"--load {name}: {_words(e, name)}", USAGE) from e


def _words(e: BaseException, name: str) -> str:
    if isinstance(e, ModuleNotFoundError) and e.name == name.split(".")[0]:
        return f"there is no module {name} in this environment or folder; a file ends in .py"
    if isinstance(e, SyntaxError):
        return f"it is not Python: {e.msg} ({e.filename}, line {e.lineno})"
    frames = [f for f in extract_tb(e.__traceback__) if not f.filename.startswith("<frozen") and f.filename != __file__]
    where = f" ({frames[-1].filename}, line {frames[-1].lineno})" if frames else ""
    what = f"{e.name} is not installed" if isinstance(e, ModuleNotFoundError) and e.name else f"{type(e).__name__}: {e}"
    return what + where
