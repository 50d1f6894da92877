// Stands in for CUDA's builtins where kernels are compiled for the host. Exactly what kernels use
// is here; a kernel that needs more adds it.
#pragma once
#include "entry.h"
#include "machine.h"
#include <cmath>
#ifdef __SSE2__
#include <emmintrin.h>
#endif

#define threadIdx (emulator::thread_index)
#define blockIdx (emulator::block_index)
#define blockDim (emulator::block_size)
#define gridDim (emulator::grid_size)

#define DEVICE static inline
// Names of a unit are its own: units compile the same source for several generations of GPUs.
#define KERNEL(threads) static void
#define DYNAMIC_SHARED(type, name) \
    type *name = reinterpret_cast<type *>(emulator::dynamic_shared())
#define __device__
#define __forceinline__ inline
#define __noinline__ __attribute__((noinline))
#define __align__(bytes) __attribute__((aligned(bytes)))

// Vectors of registers, for loads and stores of 8 and 16 bytes.
#define EMULATED_VECTORS(type, name)                                                               \
    struct __align__(2 * sizeof(type)) name##2 {                                                   \
        type x, y;                                                                                 \
    };                                                                                             \
    struct __align__(4 * sizeof(type)) name##4 {                                                   \
        type x, y, z, w;                                                                           \
    };                                                                                             \
    inline name##2 make_##name##2(type x, type y) { return {x, y}; }                               \
    inline name##4 make_##name##4(type x, type y, type z, type w) { return {x, y, z, w}; }
EMULATED_VECTORS(int, int)
EMULATED_VECTORS(unsigned, uint)
EMULATED_VECTORS(float, float)
#undef EMULATED_VECTORS

template <typename To, typename From> inline To emulated_bits(From from) {
    static_assert(sizeof(To) == sizeof(From), "the same size");
    To to;
    memcpy(&to, &from, sizeof to);
    return to;
}

// Bits.
inline unsigned __float_as_uint(float x) { return emulated_bits<unsigned>(x); }
inline int __float_as_int(float x) { return emulated_bits<int>(x); }
inline float __uint_as_float(unsigned x) { return emulated_bits<float>(x); }
inline float __int_as_float(int x) { return emulated_bits<float>(x); }
inline long long __double_as_longlong(double x) { return emulated_bits<long long>(x); }
inline double __longlong_as_double(long long x) { return emulated_bits<double>(x); }
inline int __clz(int x) { return x == 0 ? 32 : __builtin_clz(static_cast<unsigned>(x)); }
inline int __clzll(long long x) {
    return x == 0 ? 64 : __builtin_clzll(static_cast<unsigned long long>(x));
}
inline int __ffs(int x) { return __builtin_ffs(x); }
inline int __popc(unsigned x) { return __builtin_popcount(x); }
inline int __popcll(unsigned long long x) { return __builtin_popcountll(x); }
inline unsigned __funnelshift_r(unsigned low, unsigned high, unsigned by) {
    return static_cast<unsigned>(((static_cast<uint64_t>(high) << 32) | low) >> (by & 31));
}
inline unsigned __funnelshift_l(unsigned low, unsigned high, unsigned by) {
    return static_cast<unsigned>((((static_cast<uint64_t>(high) << 32) | low) << (by & 31)) >> 32);
}
inline unsigned __byte_perm(unsigned low, unsigned high, unsigned select) {
    const uint64_t bytes = (static_cast<uint64_t>(high) << 32) | low;
    unsigned result = 0;
    for (int i = 0; i < 4; ++i) {
        const unsigned nibble = select >> (4 * i) & 0xf;
        unsigned byte = static_cast<unsigned>(bytes >> (8 * (nibble & 7))) & 0xff;
        if (nibble & 8) byte = byte & 0x80 ? 0xff : 0;
        result |= byte << (8 * i);
    }
    return result;
}

// Integers.
inline unsigned __umulhi(unsigned a, unsigned b) {
    return static_cast<unsigned>((static_cast<uint64_t>(a) * b) >> 32);
}
inline int __mulhi(int a, int b) {
    return static_cast<int>((static_cast<int64_t>(a) * b) >> 32);
}
inline unsigned long long __umul64hi(unsigned long long a, unsigned long long b) {
    return static_cast<unsigned long long>((static_cast<unsigned __int128>(a) * b) >> 64);
}
inline int __dp4a(int a, int b, int sum) {
#if defined(__SSE2__)
    // Bytes go to the upper halves of 16 bits, and down again with their sign.
    const __m128i zero = _mm_setzero_si128();
    const __m128i x = _mm_srai_epi16(_mm_unpacklo_epi8(zero, _mm_cvtsi32_si128(a)), 8);
    const __m128i y = _mm_srai_epi16(_mm_unpacklo_epi8(zero, _mm_cvtsi32_si128(b)), 8);
    const __m128i pairs = _mm_madd_epi16(x, y);
    return sum + _mm_cvtsi128_si32(_mm_add_epi32(pairs, _mm_srli_epi64(pairs, 32)));
#else
    for (int i = 0; i < 4; ++i)
        sum += static_cast<signed char>(a >> (8 * i)) * static_cast<signed char>(b >> (8 * i));
    return sum;
#endif
}
inline unsigned __dp4a(unsigned a, unsigned b, unsigned sum) {
    for (int i = 0; i < 4; ++i) sum += (a >> (8 * i) & 0xff) * (b >> (8 * i) & 0xff);
    return sum;
}

// Floats: one rounding each, to nearest even. The unit is compiled without contraction.
inline float __fadd_rn(float a, float b) { return a + b; }
inline float __fsub_rn(float a, float b) { return a - b; }
inline float __fmul_rn(float a, float b) { return a * b; }
inline float __fdiv_rn(float a, float b) { return a / b; }
inline float __fsqrt_rn(float a) { return sqrtf(a); }
inline float __fmaf_rn(float a, float b, float c) { return fmaf(a, b, c); }
inline double __dadd_rn(double a, double b) { return a + b; }
inline double __dsub_rn(double a, double b) { return a - b; }
inline double __dmul_rn(double a, double b) { return a * b; }
inline double __ddiv_rn(double a, double b) { return a / b; }
inline double __fma_rn(double a, double b, double c) { return fma(a, b, c); }

// Conversions. Out of range they clamp; NaN gives 0 from f32 to 32 bits, else the least integer.
inline float __int2float_rn(int x) { return static_cast<float>(x); }
inline float __uint2float_rn(unsigned x) { return static_cast<float>(x); }
inline float __ll2float_rn(long long x) { return static_cast<float>(x); }
inline double __int2double_rn(int x) { return x; }
inline double __uint2double_rn(unsigned x) { return x; }
inline double __ll2double_rn(long long x) { return static_cast<double>(x); }
inline float __double2float_rn(double x) { return static_cast<float>(x); }
inline int emulated_clamped_int(double rounded, int of_nan) {
    if (rounded != rounded) return of_nan;
    if (rounded >= 2147483647.0) return 2147483647;
    if (rounded <= -2147483648.0) return -2147483647 - 1;
    return static_cast<int>(rounded);
}
inline int __float2int_rn(float x) {
    if (x > -2147483648.0f && x < 2147483648.0f) return static_cast<int>(lrintf(x));
    return emulated_clamped_int(x, 0);
}
inline int __float2int_rz(float x) { return emulated_clamped_int(trunc(x), 0); }
inline int __float2int_rd(float x) { return emulated_clamped_int(floor(x), 0); }
inline int __float2int_ru(float x) { return emulated_clamped_int(ceil(x), 0); }
inline int __double2int_rn(double x) {
    return emulated_clamped_int(nearbyint(x), -2147483647 - 1);
}
inline long long __double2ll_rn(double x) {
    const double rounded = nearbyint(x);
    if (rounded >= 9223372036854775808.0) return 9223372036854775807ll;
    if (!(rounded >= -9223372036854775808.0)) return -9223372036854775807ll - 1;
    return static_cast<long long>(rounded);
}

// Memory.
template <typename T> inline T __ldg(const T *from) { return *from; }
inline void __threadfence() {}
inline void __threadfence_block() {}
template <typename T> inline void emulated_atomic() {
    static_assert(std::is_integral_v<T> && sizeof(T) >= 4, "integers of 4 and 8 bytes alone");
}
template <typename T> inline T atomicAdd(T *at, std::common_type_t<T> value) {
    emulated_atomic<T>();
    return __atomic_fetch_add(at, value, __ATOMIC_RELAXED);
}
template <typename T> inline T atomicOr(T *at, std::common_type_t<T> value) {
    emulated_atomic<T>();
    return __atomic_fetch_or(at, value, __ATOMIC_RELAXED);
}
template <typename T> inline T atomicAnd(T *at, std::common_type_t<T> value) {
    emulated_atomic<T>();
    return __atomic_fetch_and(at, value, __ATOMIC_RELAXED);
}
template <typename T> inline T atomicExch(T *at, std::common_type_t<T> value) {
    emulated_atomic<T>();
    return __atomic_exchange_n(at, value, __ATOMIC_RELAXED);
}
template <typename T>
inline T atomicCAS(T *at, std::common_type_t<T> expected, std::common_type_t<T> value) {
    emulated_atomic<T>();
    __atomic_compare_exchange_n(at, &expected, value, false, __ATOMIC_RELAXED, __ATOMIC_RELAXED);
    return expected;
}
template <typename T> inline T atomicMin(T *at, std::common_type_t<T> value) {
    T old = __atomic_load_n(at, __ATOMIC_RELAXED);
    while (value < old && atomicCAS(at, old, value) != old) old = *at;
    return old;
}
template <typename T> inline T atomicMax(T *at, std::common_type_t<T> value) {
    T old = __atomic_load_n(at, __ATOMIC_RELAXED);
    while (value > old && atomicCAS(at, old, value) != old) old = *at;
    return old;
}

// Threads that work together: kernels name all 32 lanes.
inline void __syncthreads() { emulator::barrier(); }
inline void emulated_mask(unsigned mask) {
    if (mask != 0xffffffffu) emulator::fail("a warp operation names less than all 32 lanes");
}
inline void __syncwarp(unsigned mask = 0xffffffffu) {
    emulated_mask(mask);
    emulator::exchange(emulator::Collective::Sync, nullptr, 0);
}
template <typename T> inline T emulated_shuffle(unsigned mask, T mine, unsigned from) {
    emulated_mask(mask);
    const void *lanes = emulator::exchange(emulator::Collective::Shuffle, &mine, sizeof mine);
    return static_cast<const T *>(lanes)[from];
}
template <typename T> inline T __shfl_sync(unsigned mask, T mine, int from, int width = 32) {
    const unsigned lane = threadIdx.x % 32, base = lane - lane % width;
    return emulated_shuffle(mask, mine, base + static_cast<unsigned>(from) % width);
}
template <typename T>
inline T __shfl_down_sync(unsigned mask, T mine, unsigned by, int width = 32) {
    const unsigned lane = threadIdx.x % 32;
    return emulated_shuffle(mask, mine, lane % width + by < unsigned(width) ? lane + by : lane);
}
template <typename T> inline T __shfl_up_sync(unsigned mask, T mine, unsigned by, int width = 32) {
    const unsigned lane = threadIdx.x % 32;
    return emulated_shuffle(mask, mine, lane % width >= by ? lane - by : lane);
}
template <typename T> inline T __shfl_xor_sync(unsigned mask, T mine, int by, int width = 32) {
    // From a later group of `width` lanes a lane gets its own value.
    const unsigned lane = threadIdx.x % 32, from = lane ^ static_cast<unsigned>(by);
    return emulated_shuffle(mask, mine, from / width > lane / width ? lane : from % 32);
}
inline unsigned __ballot_sync(unsigned mask, int holds) {
    emulated_mask(mask);
    const unsigned mine = holds != 0;
    const auto count = [](void *lanes, void *) {
        unsigned *votes = static_cast<unsigned *>(lanes), ballot = 0;
        for (int lane = 0; lane < 32; ++lane) ballot |= votes[lane] << lane;
        votes[0] = ballot;
    };
    const void *lanes = emulator::exchange(emulator::Collective::Vote, &mine, sizeof mine, count);
    return *static_cast<const unsigned *>(lanes);
}
inline int __any_sync(unsigned mask, int holds) { return __ballot_sync(mask, holds) != 0; }
inline int __all_sync(unsigned mask, int holds) { return __ballot_sync(mask, holds) == ~0u; }
