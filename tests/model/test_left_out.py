"""Installed libraries that nobody asked for stay out, and come when a mode needs them."""

import subprocess
import sys

SCRIPT = """
import sys
from kinoswarm_model.left_out import bring_back, hide, is_installed
hide()
from diffusers import WanTransformer3DModel
from transformers import BertModel
print([name for name in ("peft", "torchao") if sys.modules.get(name)])
print(is_installed("peft"), is_installed("no_such_library"))
bring_back("peft")
from peft import LoraConfig
print(LoraConfig.__name__)
"""


def test_a_hidden_library_is_not_imported_until_it_is_asked_for() -> None:
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=True
    )
    assert done.stdout.split("\n")[:3] == ["[]", "True False", "LoraConfig"]
