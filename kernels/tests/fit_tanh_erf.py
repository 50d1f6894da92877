"""Makes the coefficients of `tanh` and `erf` in kernels/src/math.rs. Needs numpy and mpmath.

Each polynomial is the one of its degree with the smallest largest error in the result: least
squares on Chebyshev nodes, whose weights grow where the error is large until it is even.
"""

import struct

import mpmath
import numpy

mpmath.mp.dps = 40
# Below it tanh is `x + x * T(x^2)`, T without a constant.
TANH_CUT = 0.75
# Below it erf is `x + x * P(x^2)`, from it on `1 - exp(-Q(x))`.
CUT = 1.0
# From here on erf rounds to 1.
END = 4.0
DEGREE = 6


def fit(function, low, high, weight):
    nodes = numpy.cos(numpy.pi * (numpy.arange(400) + 0.5) / 400)
    xs = (low + high) / 2 + (high - low) / 2 * nodes
    ys, weights = (numpy.array([float(f(x)) for x in xs]) for f in (function, weight))
    powers = numpy.vander(xs, DEGREE + 1)
    shares = numpy.ones(len(xs))
    for _ in range(60):
        scale = weights * numpy.sqrt(shares)
        found = numpy.linalg.lstsq(powers * scale[:, None], ys * scale, rcond=None)[0]
        errors = numpy.abs((powers @ found - ys) * weights)
        shares *= errors / errors.max() + 1e-3
        shares /= shares.sum()
    return found, errors.max()


def bits(value):
    return f"0x{struct.unpack('<I', struct.pack('<f', value))[0]:08x}"


tanh = fit(
    lambda z: (mpmath.tanh(mpmath.sqrt(z)) / mpmath.sqrt(z) - 1) / z, 1e-9, TANH_CUT**2, lambda z: z
)
near = fit(
    lambda z: mpmath.erf(mpmath.sqrt(z)) / mpmath.sqrt(z) - 1, 1e-9, CUT * CUT, lambda z: 1
)
far = fit(
    lambda x: -mpmath.log(mpmath.erfc(x)), CUT, END, lambda x: mpmath.erfc(x) / mpmath.erf(x)
)
for name, (coefficients, error) in (("T", tanh), ("P", near), ("Q", far)):
    print(name, [bits(c) for c in coefficients], f"error {error:.1e}")
