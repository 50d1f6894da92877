// Memory of the emulated GPU: each allocation is a mapping of its own between guard pages, so that
// an index out of range is found at once.
#include "launch.h"
#include <cstring>
#include <sys/mman.h>
#include <unistd.h>

namespace {

// Address space, not memory, on both sides: an index that is off by whole rows is found too.
constexpr uint64_t GUARD = 16 << 20;

struct Layout {
    // From the start of the mapping to the first byte; the length of the whole mapping.
    uint64_t before, whole;
};

Layout layout_of(uint64_t bytes) {
    const uint64_t page = static_cast<uint64_t>(sysconf(_SC_PAGESIZE));
    const uint64_t aligned = (bytes + 15) / 16 * 16;
    const uint64_t pages = (aligned + page - 1) / page * page;
    return {GUARD + pages - aligned, pages + 2 * GUARD};
}

} // namespace

extern "C" void *concord_emulator_alloc(uint64_t bytes) {
    if (bytes > uint64_t(1) << 46) return nullptr;
    const Layout layout = layout_of(bytes);
    void *map = mmap(nullptr, layout.whole, PROT_NONE,
                     MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (map == MAP_FAILED) return nullptr;
    uint8_t *inside = static_cast<uint8_t *>(map) + GUARD;
    const uint64_t usable = layout.whole - 2 * GUARD;
    if (usable > 0 && mprotect(inside, usable, PROT_READ | PROT_WRITE) != 0) {
        munmap(map, layout.whole);
        return nullptr;
    }
    memset(inside, 0xff, usable);
    return static_cast<uint8_t *>(map) + layout.before;
}

extern "C" void concord_emulator_free(void *memory, uint64_t bytes) {
    const Layout layout = layout_of(bytes);
    munmap(static_cast<uint8_t *>(memory) - layout.before, layout.whole);
}

extern "C" int concord_emulator_intact(const void *memory, uint64_t bytes) {
    const Layout layout = layout_of(bytes);
    const uint8_t *start = static_cast<const uint8_t *>(memory);
    uint8_t all = 0xff;
    for (uint64_t i = GUARD; i < layout.before; ++i) all &= start[i - layout.before];
    for (uint64_t i = bytes; i < (bytes + 15) / 16 * 16; ++i) all &= start[i];
    return all == 0xff;
}
