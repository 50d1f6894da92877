"""Quantises random numbers by bitsandbytes to NF4, without nested scales, for `load_in.rs`.

    pip install torch bitsandbytes safetensors
    python models/tests/packed/make_nf4.py models/tests/packed/nf4.safetensors
"""

import sys

import torch
from bitsandbytes.functional import quantize_4bit
from safetensors.torch import save_file

torch.manual_seed(11)
# Normal numbers of different sizes, with what a block may have: zeros, an outlier, tiny ones.
values = torch.randn(40, 128) * torch.logspace(-6, 3, 40)[:, None]
values[1] = 0.0
values[2, 5] = 1e4
values[3] = torch.randn(128) * 1e-30
codes, state = quantize_4bit(values, blocksize=64, quant_type="nf4")
assert state.absmax.dtype == torch.float32
save_file(
    {"values": values, "codes": codes.flatten().contiguous(), "absmax": state.absmax},
    sys.argv[1],
)
