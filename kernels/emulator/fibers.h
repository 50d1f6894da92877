// Stacks for the threads of a block, and the switch from one to another.
#pragma once
#include <cstddef>
#include <cstdint>

namespace emulator {

// Saves the callee-saved registers on this stack, stores its top in *from, and goes on where the
// stack `to` was left.
extern "C" void concord_emulator_switch(void **from, void *to);

// Stacks of one thread of the host, each with a page below it that may not be touched.
class Stacks {
  public:
    // Room for `count` stacks, none in use. False where the host has no memory.
    bool reserve(uint32_t count);
    // Takes all stacks back.
    void reset();
    // A free stack; at most `count` are in use.
    uint32_t take() { return free_[--free_count_]; }
    void put(uint32_t stack) { free_[free_count_++] = stack; }
    // A stack that starts in `entry` at the next switch to it.
    void *start(uint32_t stack, void (*entry)()) const;
    ~Stacks();

  private:
    uint8_t *memory_ = nullptr;
    uint32_t *free_ = nullptr;
    uint32_t count_ = 0;
    uint32_t free_count_ = 0;
};

} // namespace emulator
