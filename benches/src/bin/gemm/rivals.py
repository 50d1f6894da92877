"""Times float products for the bench: reads `name size calls`, answers with seconds a call."""

import sys
import time

import numpy
import torch

torch.set_num_threads(int(sys.argv[1]))
torch.set_grad_enabled(False)


def sides(name, size):
    """The two sides, the second seen through its transpose, and a place for the product."""
    x, w, out = (torch.randn(size, size) for _ in range(3))
    if name == "torch-bf16":
        x, w, out = x.bfloat16(), w.bfloat16(), out.bfloat16()
    if name == "openblas-f32":
        x, w, out = x.numpy(), w.numpy(), out.numpy()
    return x, w.T, out


def product(name, x, w, out):
    (numpy.matmul if name == "openblas-f32" else torch.mm)(x, w, out=out)


print(f"torch {torch.__version__}, numpy {numpy.__version__}", flush=True)
made = {}
for line in sys.stdin:
    name, size, calls = line.split()
    key = (name, int(size))
    if key not in made:
        made[key] = sides(*key)
        product(name, *made[key])
    start = time.perf_counter()
    for _ in range(int(calls)):
        product(name, *made[key])
    print((time.perf_counter() - start) / int(calls), flush=True)
