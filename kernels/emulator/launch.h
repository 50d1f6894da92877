// The C interface of the emulated GPU: kernels/src/gpu/emulator.rs mirrors it.
#pragma once
#include "entry.h"

namespace emulator {

// The order in which threads and blocks take turns.
enum class Order : uint32_t { Forward, Reverse, Shuffled };

struct Launch {
    const Entry *kernel;
    void **arguments;
    uint64_t seed;
    uint32_t blocks[3];
    uint32_t threads;
    uint32_t shared;
    Order order;
};

} // namespace emulator

extern "C" {
// All modules that the build compiled; their number goes to *count.
const emulator::Module *const *concord_emulator_modules(uint64_t *count);

// Runs all blocks. Returns 0, or 1 with a text in `message` (which has room for `capacity` bytes,
// at least 1) and, where a thread touched memory that is not its own, the address in *fault.
int concord_emulator_launch(const emulator::Launch *launch, char *message, uint64_t capacity,
                            uint64_t *fault);

// Memory of exactly `bytes`, filled with 0xff, that ends (up to 15 bytes) before pages which may
// not be touched; null where the host has none.
void *concord_emulator_alloc(uint64_t bytes);
void concord_emulator_free(void *memory, uint64_t bytes);
// Whether nobody wrote between the allocation and the pages that may not be touched.
int concord_emulator_intact(const void *memory, uint64_t bytes);
}
