"""Writes rope_frequencies.txt by transformers 5: a line for each scaling, with its attention factor
and its frequencies. kernels/tests/rope_frequencies.rs has the same scalings."""

import pathlib

import torch
from transformers import LlamaConfig
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

torch.set_num_threads(1)

YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 4096}
LONG = {
    "rope_type": "longrope",
    "short_factor": [1.0 + i / 16 for i in range(32)],
    "long_factor": [1.0 + i * i / 8 for i in range(32)],
    "original_max_position_embeddings": 4096,
}
LLAMA3 = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 8192,
}
# Name, parameters, base, longest position, length of the sequence.
CASES = [
    ("linear", {"rope_type": "linear", "factor": 2.5}, 10_000.0, 4096, None),
    ("llama3", LLAMA3, 500_000.0, 131_072, None),
    ("yarn", YARN, 10_000.0, 16_384, None),
    ("yarn-ends", YARN | {"beta_fast": 24.0, "beta_slow": 2.0}, 1_000_000.0, 16_384, None),
    ("yarn-no-truncation", YARN | {"factor": 32.0, "truncate": False}, 150_000.0, 131_072, None),
    ("yarn-factor", YARN | {"attention_factor": 0.75}, 10_000.0, 16_384, None),
    ("longrope-short", LONG, 10_000.0, 131_072, 4096),
    ("longrope-long", LONG, 10_000.0, 131_072, 4097),
    ("dynamic-short", {"rope_type": "dynamic", "factor": 2.0}, 10_000.0, 2048, 100),
    ("dynamic-long", {"rope_type": "dynamic", "factor": 2.0}, 10_000.0, 2048, 5000),
    (
        "proportional",
        {"rope_type": "proportional", "partial_rotary_factor": 0.25, "factor": 2.0},
        1_000_000.0,
        4096,
        None,
    ),
]

lines = []
for name, parameters, theta, longest, length in CASES:
    config = LlamaConfig(
        hidden_size=256,
        num_attention_heads=4,
        max_position_embeddings=longest,
        rope_parameters=parameters | {"rope_theta": theta},
    )
    function = ROPE_INIT_FUNCTIONS[parameters["rope_type"]]
    frequencies, factor = function(config, seq_len=length)
    numbers = [factor, *frequencies.tolist()]
    lines.append(" ".join([name, *(f"{number:.9g}" for number in numbers)]))
text = "\n".join(lines) + "\n"
pathlib.Path(__file__).with_name("rope_frequencies.txt").write_text(text)
