// Products of small tiles by a warp: int8 tensor cores (sm_75 and later), f16 tensor cores (sm_70
// and later). In the emulator one lane does the same product for its warp, from the same fragments.
#pragma once
#include "base.cuh"

// C[16][8] += A[16][32] * B[8][32]^T over int8, sums modulo 2^32; `mma` below. A lane's share, with
// g = lane / 4 and t = lane % 4: a[0] is A[g][4t..4t+4], a[1] the same of row g + 8, a[2] and a[3]
// as these, 16 further along the depth; b[0] is B[g][4t..4t+4], b[1] 16 further; c[0] and c[1] are
// C[g][2t] and C[g][2t+1], c[2] and c[3] the same of row g + 8.

#ifdef CONCORD_EMULATED

// sum += x . y over N bytes.
template <u32 N> static inline void emulated_dot(i32 &sum, const i8 *x, const i8 *y) {
    for (u32 i = 0; i < N; ++i) sum += x[i] * y[i];
}

static inline void mma_m16n8k32(i32 (&c)[4], const u32 (&a)[4], const u32 (&b)[2]) {
    struct Lane {
        u32 a[4], b[2];
        i32 c[4];
    } mine = {{a[0], a[1], a[2], a[3]}, {b[0], b[1]}, {c[0], c[1], c[2], c[3]}};
    emulator::warp_apply(mine, [](Lane *lanes) {
        u32 rows[16][8], cols[8][8];
        for (u32 lane = 0; lane < 32; ++lane) {
            const u32 g = lane / 4, t = lane % 4;
            for (u32 i = 0; i < 4; ++i) rows[g + i % 2 * 8][t + i / 2 * 4] = lanes[lane].a[i];
            for (u32 i = 0; i < 2; ++i) cols[g][t + i * 4] = lanes[lane].b[i];
        }
        for (u32 row = 0; row < 16; ++row)
            for (u32 col = 0; col < 8; ++col)
                emulated_dot<32>(lanes[row % 8 * 4 + col / 2].c[row / 8 * 2 + col % 2],
                                 reinterpret_cast<const i8 *>(rows[row]),
                                 reinterpret_cast<const i8 *>(cols[col]));
    });
    for (u32 i = 0; i < 4; ++i) c[i] = mine.c[i];
}

// Turing's shape: C[8][8] += A[8][16] * B[8][16]^T, one word of A and of B a lane.
static inline void mma_m8n8k16(i32 &c0, i32 &c1, u32 a, u32 b) {
    struct Lane {
        u32 a, b;
        i32 c[2];
    } mine = {a, b, {c0, c1}};
    emulator::warp_apply(mine, [](Lane *lanes) {
        u32 rows[8][4], cols[8][4];
        for (u32 lane = 0; lane < 32; ++lane) {
            rows[lane / 4][lane % 4] = lanes[lane].a;
            cols[lane / 4][lane % 4] = lanes[lane].b;
        }
        for (u32 row = 0; row < 8; ++row)
            for (u32 col = 0; col < 8; ++col)
                emulated_dot<16>(lanes[row * 4 + col / 2].c[col % 2],
                                 reinterpret_cast<const i8 *>(rows[row]),
                                 reinterpret_cast<const i8 *>(cols[col]));
    });
    c0 = mine.c[0];
    c1 = mine.c[1];
}

#elif ARCH >= 80

DEVICE void mma_m16n8k32(i32 (&c)[4], const u32 (&a)[4], const u32 (&b)[2]) {
    asm volatile("mma.sync.aligned.m16n8k32.row.col.s32.s8.s8.s32 "
                 "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
                 : "+r"(c[0]), "+r"(c[1]), "+r"(c[2]), "+r"(c[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

#elif ARCH >= 75

DEVICE void mma_m8n8k16(i32 &c0, i32 &c1, u32 a, u32 b) {
    asm volatile("mma.sync.aligned.m8n8k16.row.col.s32.s8.s8.s32 {%0, %1}, {%2}, {%3}, {%0, %1};"
                 : "+r"(c0), "+r"(c1)
                 : "r"(a), "r"(b));
}

#endif

#if defined(CONCORD_EMULATED) || ARCH >= 75
// All 32 lanes call it.
DEVICE void mma(i32 (&c)[4], const u32 (&a)[4], const u32 (&b)[2]) {
#if ARCH >= 80
    mma_m16n8k32(c, a, b);
#else
    mma_m8n8k16(c[0], c[1], a[0], b[0]);
    mma_m8n8k16(c[0], c[1], a[2], b[1]);
    mma_m8n8k16(c[2], c[3], a[1], b[0]);
    mma_m8n8k16(c[2], c[3], a[3], b[1]);
#endif
}
#endif

// An integer of [-2048, 2048] as the bits of an f16.
DEVICE u16 half_of(i32 value) {
    const u32 bits = bits_of(__int2float_rn(value));
    const u32 magnitude = bits & 0x7fffffffu;
    const u32 half = magnitude == 0 ? 0 : (magnitude >> 13) - ((127u - 15u) << 10);
    return static_cast<u16>(bits >> 16 & 0x8000u | half);
}

// Operands of 16 x 16 f16 in registers; which lane holds which element is not specified.
struct HalfFragment {
    u32 word[8];
};

// C[16][16] in f32. Sums of integers are exact while they stay within +-2^24.
struct FloatFragment {
    f32 value[8];
};

#ifdef CONCORD_EMULATED

// The emulator's layout of operands: lane l holds row l % 16. Of results: half a row, l / 2.
static inline void load_half(HalfFragment &to, const u16 *from, u32 pitch) {
    const u16 *row = from + lane_of_warp() % 16 * pitch;
    for (u32 i = 0; i < 8; ++i) to.word[i] = row[2 * i] | static_cast<u32>(row[2 * i + 1]) << 16;
}
#define load_half_a load_half
#define load_half_b load_half

static inline f32 emulated_half(u32 bits) {
    const u32 magnitude = bits & 0x7fffu;
    const u32 wide = magnitude == 0 ? 0 : (magnitude << 13) + ((127u - 15u) << 23);
    return from_bits((bits & 0x8000u) << 16 | wide);
}

static inline void mma(FloatFragment &c, const HalfFragment &a, const HalfFragment &b) {
    struct Lane {
        HalfFragment a, b;
        FloatFragment c;
    } mine = {a, b, c};
    emulator::warp_apply(mine, [](Lane *lanes) {
        f32 rows[16][16], turned_cols[16][16];
        for (u32 i = 0; i < 16; ++i)
            for (u32 k = 0; k < 16; ++k) {
                rows[i][k] = emulated_half(lanes[i].a.word[k / 2] >> (k % 2 * 16) & 0xffffu);
                turned_cols[k][i] = emulated_half(lanes[i].b.word[k / 2] >> (k % 2 * 16) & 0xffffu);
            }
        for (u32 row = 0; row < 16; ++row)
            for (u32 k = 0; k < 16; ++k)
                for (u32 col = 0; col < 16; ++col) {
                    f32 &sum = lanes[row * 2 + col / 8].c.value[col % 8];
                    sum = rn::add(sum, rn::mul(rows[row][k], turned_cols[k][col]));
                }
    });
    c = mine.c;
}

static inline void store_words(i32 *to, const i32 (&words)[8], u32 pitch) {
    i32 *row = to + lane_of_warp() / 2 * pitch + lane_of_warp() % 2 * 8;
    for (u32 i = 0; i < 8; ++i) row[i] = words[i];
    __syncwarp();
}

#elif ARCH >= 70

// The address of shared memory as PTX has it.
DEVICE u32 shared_address(const void *at) {
    return static_cast<u32>(__cvta_generic_to_shared(at));
}

// A[16][16] from rows of `pitch` f16 in shared memory. `from` is aligned to 32 bytes, the pitch to
// 8.
DEVICE void load_half_a(HalfFragment &to, const u16 *from, u32 pitch) {
    u32(&w)[8] = to.word;
    asm volatile("wmma.load.a.sync.aligned.row.m16n16k16.shared.f16 "
                 "{%0, %1, %2, %3, %4, %5, %6, %7}, [%8], %9;"
                 : "=r"(w[0]), "=r"(w[1]), "=r"(w[2]), "=r"(w[3]), "=r"(w[4]), "=r"(w[5]),
                   "=r"(w[6]), "=r"(w[7])
                 : "r"(shared_address(from)), "r"(pitch)
                 : "memory");
}

// B[16][16]^T from rows of `pitch` f16: the depth lies along a row, as for A.
DEVICE void load_half_b(HalfFragment &to, const u16 *from, u32 pitch) {
    u32(&w)[8] = to.word;
    asm volatile("wmma.load.b.sync.aligned.col.m16n16k16.shared.f16 "
                 "{%0, %1, %2, %3, %4, %5, %6, %7}, [%8], %9;"
                 : "=r"(w[0]), "=r"(w[1]), "=r"(w[2]), "=r"(w[3]), "=r"(w[4]), "=r"(w[5]),
                   "=r"(w[6]), "=r"(w[7])
                 : "r"(shared_address(from)), "r"(pitch)
                 : "memory");
}

// C += A * B^T.
DEVICE void mma(FloatFragment &c, const HalfFragment &a, const HalfFragment &b) {
    f32(&v)[8] = c.value;
    const u32(&x)[8] = a.word;
    const u32(&y)[8] = b.word;
    asm volatile("wmma.mma.sync.aligned.row.col.m16n16k16.f32.f32 "
        "{%0, %1, %2, %3, %4, %5, %6, %7}, "
        "{%8, %9, %10, %11, %12, %13, %14, %15}, {%16, %17, %18, %19, %20, %21, %22, %23}, "
        "{%0, %1, %2, %3, %4, %5, %6, %7};"
        : "+f"(v[0]), "+f"(v[1]), "+f"(v[2]), "+f"(v[3]), "+f"(v[4]), "+f"(v[5]), "+f"(v[6]),
          "+f"(v[7])
        : "r"(x[0]), "r"(x[1]), "r"(x[2]), "r"(x[3]), "r"(x[4]), "r"(x[5]), "r"(x[6]), "r"(x[7]),
          "r"(y[0]), "r"(y[1]), "r"(y[2]), "r"(y[3]), "r"(y[4]), "r"(y[5]), "r"(y[6]), "r"(y[7]));
}

// Stores 32-bit words, laid out over the lanes like the values of a FloatFragment, in rows of
// `pitch` words.
DEVICE void store_words(i32 *to, const i32 (&w)[8], u32 pitch) {
    asm volatile("wmma.store.d.sync.aligned.row.m16n16k16.shared.f32 [%0], "
                 "{%1, %2, %3, %4, %5, %6, %7, %8}, %9;"
                 :
                 : "r"(shared_address(to)), "f"(__int_as_float(w[0])), "f"(__int_as_float(w[1])),
                   "f"(__int_as_float(w[2])), "f"(__int_as_float(w[3])),
                   "f"(__int_as_float(w[4])), "f"(__int_as_float(w[5])),
                   "f"(__int_as_float(w[6])), "f"(__int_as_float(w[7])), "r"(pitch)
                 : "memory");
    __syncwarp();
}

#endif
