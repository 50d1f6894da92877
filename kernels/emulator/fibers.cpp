#include "fibers.h"
#include <cstdlib>
#include <sys/mman.h>
#include <unistd.h>

// Saves the registers that a function must keep for its caller; rounding modes never change here.
#if defined(__APPLE__)
#define SYMBOL "_concord_emulator_switch"
#else
#define SYMBOL "concord_emulator_switch"
#endif
#if defined(__x86_64__)
asm(".text\n.globl " SYMBOL "\n.p2align 4\n" SYMBOL ":\n"
    "pushq %rbp\npushq %rbx\npushq %r12\npushq %r13\npushq %r14\npushq %r15\n"
    "movq %rsp, (%rdi)\n"
    "movq %rsi, %rsp\n"
    "popq %r15\npopq %r14\npopq %r13\npopq %r12\npopq %rbx\npopq %rbp\n"
    "ret\n");
constexpr size_t SAVED_WORDS = 6;
#elif defined(__aarch64__)
asm(".text\n.globl " SYMBOL "\n.p2align 4\n" SYMBOL ":\n"
    "sub sp, sp, #160\n"
    "stp x19, x20, [sp]\nstp x21, x22, [sp, #16]\nstp x23, x24, [sp, #32]\n"
    "stp x25, x26, [sp, #48]\nstp x27, x28, [sp, #64]\nstp x29, x30, [sp, #80]\n"
    "stp d8, d9, [sp, #96]\nstp d10, d11, [sp, #112]\nstp d12, d13, [sp, #128]\n"
    "stp d14, d15, [sp, #144]\n"
    "mov x9, sp\nstr x9, [x0]\nmov sp, x1\n"
    "ldp x19, x20, [sp]\nldp x21, x22, [sp, #16]\nldp x23, x24, [sp, #32]\n"
    "ldp x25, x26, [sp, #48]\nldp x27, x28, [sp, #64]\nldp x29, x30, [sp, #80]\n"
    "ldp d8, d9, [sp, #96]\nldp d10, d11, [sp, #112]\nldp d12, d13, [sp, #128]\n"
    "ldp d14, d15, [sp, #144]\n"
    "add sp, sp, #160\n"
    "ret\n");
#else
#error "the emulated GPU runs on x86-64 and aarch64: build without the feature `emulator`"
#endif

namespace emulator {

namespace {
constexpr size_t STACK_BYTES = 256 << 10;
// Stacks start at different offsets, or all would fall on the same cache lines.
constexpr size_t COLOURS = 61;
constexpr size_t COLOUR_BYTES = 320;
} // namespace

bool Stacks::reserve(uint32_t count) {
    if (count > count_) {
        const size_t guard = static_cast<size_t>(sysconf(_SC_PAGESIZE));
        void *memory = mmap(nullptr, count * STACK_BYTES, PROT_READ | PROT_WRITE,
                            MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        uint32_t *free_stacks = static_cast<uint32_t *>(malloc(count * sizeof(uint32_t)));
        if (memory == MAP_FAILED || free_stacks == nullptr) return false;
        if (memory_ != nullptr) munmap(memory_, count_ * STACK_BYTES);
        free(free_);
        memory_ = static_cast<uint8_t *>(memory);
        free_ = free_stacks;
        count_ = count;
        for (uint32_t i = 0; i < count; ++i) mprotect(memory_ + i * STACK_BYTES, guard, PROT_NONE);
    }
    reset();
    return true;
}

void Stacks::reset() {
    for (uint32_t i = 0; i < count_; ++i) free_[i] = count_ - 1 - i;
    free_count_ = count_;
}

void *Stacks::start(uint32_t stack, void (*entry)()) const {
    uint8_t *top = memory_ + (stack + 1) * STACK_BYTES - (stack % COLOURS) * COLOUR_BYTES;
    top = reinterpret_cast<uint8_t *>(reinterpret_cast<uintptr_t>(top) & ~uintptr_t(15));
    void **words = reinterpret_cast<void **>(top);
#if defined(__x86_64__)
    // As if `entry` had been called: no caller, then its own address for the switch to return to.
    *--words = nullptr;
    *--words = reinterpret_cast<void *>(entry);
    words -= SAVED_WORDS;
#else
    words -= 20;
    words[11] = reinterpret_cast<void *>(entry);
#endif
    return words;
}

Stacks::~Stacks() {
    if (memory_ != nullptr) munmap(memory_, count_ * STACK_BYTES);
    free(free_);
}

} // namespace emulator
