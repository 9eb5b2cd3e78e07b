"""What opening a model takes beside its weights: less than a copy of them, also where sums are proved in a wider float type."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

OPEN = """
import json, torch
from transformers import LlamaConfig, LlamaForCausalLM
from openmav.backends.transformers import wrap

def opened(layers, width):
    sizes = dict(hidden_size=width, intermediate_size=4 * width, num_attention_heads=8, num_key_value_heads=8)
    model = LlamaForCausalLM(LlamaConfig(vocab_size=256, num_hidden_layers=layers, **sizes)).eval()
    forget_peak()
    before = peak()
    backend = wrap(model, None)
    assert None not in (*backend.anatomy.attention, *backend.anatomy.mlp)
    return sum(p.numel() * p.element_size() for p in model.parameters()), peak() - before

def peak():
    with open("/proc/self/status") as file:
        return 1024 * int(next(line for line in file if line.startswith("VmHWM")).split()[1])

def forget_peak():
    with open("/proc/self/clear_refs", "w") as file:
        file.write("5")

torch.set_default_dtype(torch.bfloat16)
opened(2, 64)  # what is imported and set up once
print(json.dumps(opened(24, 512)))  # weights, and the peak above what the process held
"""


@pytest.mark.skipif(sys.platform != "linux", reason="the peak is read from Linux's /proc")
def test_opening_a_model_needs_no_second_copy_of_its_weights() -> None:
    done = subprocess.run([sys.executable, "-c", OPEN], capture_output=True, text=True, timeout=240, check=True)
    weights, more = json.loads(done.stdout)
    assert weights > 150e6  # so that what the libraries take for themselves does not count
    assert more < weights / 3  # one layer in fp32 is a twelfth of these weights
