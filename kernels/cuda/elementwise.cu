// Sums and scaled sums element by element, the canonical form that a tensor takes before it leaves
// the GPU, and the elementary functions of math.cuh over arrays. Twin of
// kernels/src/cpu/elementwise.rs.
#include "math.cuh"
#include "spread.cuh"

// a += b.
KERNEL(256) add_assign(f32 *a, const f32 *b, u64 len) {
    for_each_of(len, [&](u64 i) { a[i] = rn::add(a[i], b[i]); });
}

// a = fma(factor, b, a).
KERNEL(256) scaled_add_assign(f32 *a, const f32 *b, f32 factor, u64 len) {
    for_each_of(len, [&](u64 i) { a[i] = rn::fma(factor, b[i], a[i]); });
}

// y = factor * x.
KERNEL(256) scaled(const f32 *x, f32 *y, f32 factor, u64 len) {
    for_each_of(len, [&](u64 i) { y[i] = rn::mul(x[i], factor); });
}

// y = a * b.
KERNEL(256) products(const f32 *a, const f32 *b, f32 *y, u64 len) {
    for_each_of(len, [&](u64 i) { y[i] = rn::mul(a[i], b[i]); });
}

// y = every row of x [rows, cols] times factors [cols].
KERNEL(256) scaled_columns(const f32 *x, const f32 *factors, f32 *y, u32 rows, u32 cols) {
    for_each_in(rows, cols, [&](u32 row, u32 c) {
        const u64 at = static_cast<u64>(row) * cols + c;
        y[at] = rn::mul(x[at], factors[c]);
    });
}

// Adds bias [cols] to every row of x [rows, cols].
KERNEL(256) add_bias(f32 *x, const f32 *bias, u32 rows, u32 cols) {
    for_each_in(rows, cols, [&](u32 row, u32 c) {
        const u64 at = static_cast<u64>(row) * cols + c;
        x[at] = rn::add(x[at], bias[c]);
    });
}

// The gradient of a bias of each atom, [atoms, cols]: a thread takes a column and walks the tokens
// of the atom in order. A sequence has `sequence_len` tokens, an atom at most `atom_tokens`.
KERNEL(64) bias_gradient_atoms(const f32 *dy, f32 *partials, u32 cols, u32 atoms, u64 sequence_len,
                               u64 atom_tokens) {
    const u64 per_sequence = div_ceil(sequence_len, atom_tokens);
    for_each_in(atoms, cols, [&](u32 atom, u32 c) {
        const u64 start = (atom % per_sequence) * atom_tokens;
        const u64 first = (atom / per_sequence) * sequence_len + start;
        const u64 end = first + least(atom_tokens, sequence_len - start);
        f32 sum = 0.0f;
#pragma unroll 8
        for (u64 token = first; token < end; token++) sum = rn::add(sum, dy[token * cols + c]);
        partials[static_cast<u64>(atom) * cols + c] = sum;
    });
}

// Turns -0 into +0 and lowers *found to the index of the first element that is not finite.
KERNEL(256) canonicalise(f32 *x, u64 *found, u64 len) {
    u64 bad = ~0ull;
    for_each_of(len, [&](u64 i) {
        const u32 bits = bits_of(x[i]);
        if (bits == 0x80000000u) x[i] = 0.0f;
        if ((bits & 0x7f800000u) == 0x7f800000u) bad = least(bad, i);
    });
    if (bad != ~0ull) atomicMin(found, bad);
}

// x = 2^x for each element.
KERNEL(256) exp2_assign(f32 *x, u64 len) {
    for_each_of(len, [&](u64 i) { x[i] = exp2_of(x[i]); });
}

// x = e^x for each element.
KERNEL(256) exp_assign(f32 *x, u64 len) {
    for_each_of(len, [&](u64 i) { x[i] = exp_of(x[i]); });
}

// x = ln(x) for each element.
KERNEL(256) ln_assign(f32 *x, u64 len) {
    for_each_of(len, [&](u64 i) { x[i] = ln_of(x[i]); });
}

// x = tanh(x) for each element.
KERNEL(256) tanh_assign(f32 *x, u64 len) {
    for_each_of(len, [&](u64 i) { x[i] = tanh_of(x[i]); });
}

// x = erf(x) for each element.
KERNEL(256) erf_assign(f32 *x, u64 len) {
    for_each_of(len, [&](u64 i) { x[i] = erf_of(x[i]); });
}

// x = the smallest integer not below x, for each element.
KERNEL(256) ceil_assign(f32 *x, u64 len) {
    for_each_of(len, [&](u64 i) { x[i] = __int2float_rn(ceil_to_int(x[i])); });
}
