"""Libraries that diffusers and transformers would import only because they are installed. Owns hiding them.

torchao and peft cost a second and a page of warnings at every start of a program that uses neither. Hidden, they count
as not installed; a mode of training that needs one asks for it by `bring_back`.
"""

import sys
from importlib.machinery import PathFinder

_HIDDEN = ("peft", "torchao")


def hide() -> None:
    """Call at a program's start, before diffusers or transformers are imported."""
    for name in _HIDDEN:
        sys.modules.setdefault(name, None)  # type: ignore[arg-type]  # how Python marks a module as absent


def is_installed(name: str) -> bool:
    """Whether the library is here, hidden or not."""
    return PathFinder.find_spec(name) is not None


def bring_back(name: str) -> None:
    """Let `import name` work again."""
    if sys.modules.get(name, ...) is None:
        del sys.modules[name]
