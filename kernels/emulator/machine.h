// What a kernel's builtins ask of the emulated multiprocessor: who the calling thread is, barriers,
// exchanges within a warp. Threads of a block are fibers on one thread of the host.
#pragma once
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <type_traits>

namespace emulator {

struct Index3 {
    uint32_t x, y, z;
};

// Of the thread that runs, as CUDA names them: blocks are along x alone.
extern __thread Index3 thread_index;
extern __thread Index3 block_index;
extern __thread Index3 block_size;
extern __thread Index3 grid_size;

// Bytes that a lane may hand over in one exchange.
constexpr size_t EXCHANGE_BYTES_MAX = 256;

// The operations that all lanes of a warp take part in. Lanes that call different ones fail.
enum class Collective : uint8_t { None, Sync, Shuffle, Vote, Gather, Apply };

using Apply = void (*)(void *lanes, void *context);

// Waits for all threads of the block.
void barrier();

// The two halves of an exchange: a lane gets the place for its bytes, then waits for the others.
uint8_t *come(Collective what, size_t bytes);
void meet(Apply apply, void *context);

// Puts `bytes` of this lane beside those of the others of its warp, waits for all 32, and returns
// them in the order of lanes: valid until this lane's next exchange but one. The last to come calls
// `apply` on them, where given.
inline void *exchange(Collective what, const void *mine, size_t bytes, Apply apply = nullptr,
                      void *context = nullptr) {
    uint8_t *lanes = come(what, bytes);
    // Here, where the compiler knows the length.
    if (bytes > 0) memcpy(lanes + thread_index.x % 32 * bytes, mine, bytes);
    meet(apply, context);
    return lanes;
}

// Ends the launch with an error that names the thread.
[[noreturn]] void fail(const char *reason);

// The variable of shared memory that `key` stands for, the same for all threads of the block; it
// holds garbage at first.
void *shared_variable(const void *key, size_t bytes);

template <typename T> T &shared_variable(const void *key) {
    return *static_cast<T *>(shared_variable(key, sizeof(T)));
}

// The dynamic shared memory of the block: garbage when a block starts.
void *dynamic_shared();

// All 32 lanes' values, in the order of lanes; valid until this lane's next exchange but one.
template <typename T> const T *warp_lanes(const T &mine) {
    static_assert(std::is_trivially_copyable_v<T> && sizeof(T) <= EXCHANGE_BYTES_MAX, "too large");
    return static_cast<const T *>(exchange(Collective::Gather, &mine, sizeof(T)));
}

// Leaves every lane with all 32 lanes' bytes: `all` has room for 32 times `bytes`.
inline void warp_gather(const void *mine, size_t bytes, void *all) {
    memcpy(all, exchange(Collective::Gather, mine, bytes), 32 * bytes);
}

// Calls `work(T *lanes)` once a warp on all 32 lanes' values, then gives each lane its own back:
// for what the hardware does a warp at a time, such as a product of tiles.
template <typename T, typename Work> void warp_apply(T &mine, Work work) {
    static_assert(std::is_trivially_copyable_v<T> && sizeof(T) <= EXCHANGE_BYTES_MAX, "too large");
    const auto call = [](void *lanes, void *context) {
        (*static_cast<Work *>(context))(static_cast<T *>(lanes));
    };
    const void *lanes = exchange(Collective::Apply, &mine, sizeof(T), call, &work);
    mine = static_cast<const T *>(lanes)[thread_index.x % 32];
}

} // namespace emulator
