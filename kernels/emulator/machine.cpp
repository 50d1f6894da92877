// One multiprocessor: runs the blocks of a launch one by one, the threads of a block as fibers that
// take turns at barriers and warp operations. Threads that wait for different things end the
// launch.
#include "machine.h"
#include "faults.h"
#include "fibers.h"
#include "launch.h"
#include "turns.h"
#include <cstdarg>
#include <cstdio>
#include <cstdlib>
#include <memory>

namespace emulator {

__thread Index3 thread_index;
__thread Index3 block_index;
__thread Index3 block_size;
__thread Index3 grid_size;

namespace {

constexpr uint32_t THREADS_MAX = 1024;
// What CUDA allows a block.
constexpr size_t STATIC_BYTES_MAX = 48 << 10;
constexpr uint32_t NO_STACK = ~0u;

enum class State : uint8_t { Ready, AtBarrier, InWarp, Left };

struct Thread {
    void *stack_top;
    uint32_t stack;
    State state;
};

// The exchange of a warp: two sets of slots take turns, so that lanes may come to the next exchange
// while others still read the last.
struct Warp {
    uint32_t arrived;
    uint32_t turn;
    uint32_t bytes;
    Collective what;
    alignas(64) uint8_t lanes[2][32 * EXCHANGE_BYTES_MAX];
};

const char *name_of(Collective what) {
    switch (what) {
    case Collective::Sync: return "__syncwarp";
    case Collective::Shuffle: return "a shuffle";
    case Collective::Vote: return "a vote";
    case Collective::Gather:
    case Collective::Apply: return "a warp product";
    case Collective::None: break;
    }
    return "a warp operation";
}

class Machine {
  public:
    Machine() = default;
    Machine(const Machine &) = delete;
    ~Machine();
    bool run(const Launch &launch);
    void barrier();
    uint8_t *come(Collective what, size_t bytes);
    void meet(Apply apply, void *context);
    [[noreturn]] void abandon();
    void *shared() const { return shared_; }
    bool in_kernel() const { return in_kernel_; }
    void *variable(const void *key, size_t bytes);
    void describe(const char *format, ...);

    char error[512];
    uint64_t fault = 0;

  private:
    static void fiber();
    bool prepare(const Launch &launch);
    bool run_block();
    void live();
    void wait(State state);
    void *resume(uint32_t thread);
    void report_stuck();
    uint32_t first_in(State state, uint32_t *count) const;

    const Launch *launch_ = nullptr;
    Thread threads_[THREADS_MAX];
    Warp *warps_ = nullptr;
    Queue ready_;
    Turns turns_;
    Stacks stacks_;
    void *main_top_ = nullptr;
    void *shared_ = nullptr;
    uint32_t shared_bytes_ = 0;
    // Variables of static shared memory that the block has used so far, and where the next one
    // goes.
    struct Variable {
        const void *key;
        void *place;
    };
    Variable variables_[64];
    uint32_t variable_count_ = 0;
    size_t static_bytes_ = 0;
    alignas(128) uint8_t static_shared_[STATIC_BYTES_MAX];
    uint32_t at_barrier_ = 0;
    uint32_t left_ = 0;
    bool in_kernel_ = false;
    bool failed_ = false;
};

// One per thread of the host, made by its first launch. A plain pointer, because kernels read it
// often.
__thread Machine *machine = nullptr;

void Machine::describe(const char *format, ...) {
    const Index3 &b = block_index;
    int used = snprintf(error, sizeof error, "block (%u, %u, %u), thread %u: ", b.x, b.y, b.z,
                        thread_index.x);
    va_list values;
    va_start(values, format);
    vsnprintf(error + used, sizeof error - used, format, values);
    va_end(values);
}

// Abandons all fibers as they are: kernels own nothing that would have to be freed.
void Machine::abandon() {
    failed_ = true;
    void *nobody;
    concord_emulator_switch(&nobody, main_top_);
    abort();
}

uint32_t Machine::first_in(State state, uint32_t *count) const {
    uint32_t first = 0;
    *count = 0;
    for (uint32_t t = launch_->threads; t-- > 0;)
        if (threads_[t].state == state) {
            first = t;
            ++*count;
        }
    return first;
}

void Machine::report_stuck() {
    uint32_t barrier, warp, left;
    const uint32_t at_barrier = first_in(State::AtBarrier, &barrier);
    const uint32_t in_warp = first_in(State::InWarp, &warp);
    const uint32_t gone = first_in(State::Left, &left);
    int used = snprintf(error, sizeof error, "block (%u, %u, %u) can never go on:", block_index.x,
                        block_index.y, block_index.z);
    const auto add = [&](uint32_t count, const char *what, uint32_t first) {
        if (count > 0)
            used += snprintf(error + used, sizeof error - used, " %u threads %s (the first is %u);",
                             count, what, first);
    };
    add(barrier, "wait at __syncthreads", at_barrier);
    add(warp, "wait in a warp operation for all 32 lanes", in_warp);
    add(left, "have left the kernel", gone);
    error[used - 1] = 0;
}

// The stack on which a thread that is ready goes on.
void *Machine::resume(uint32_t thread) {
    thread_index.x = thread;
    Thread &next = threads_[thread];
    next.state = State::Ready;
    if (next.stack != NO_STACK) return next.stack_top;
    next.stack = stacks_.take();
    return stacks_.start(next.stack, fiber);
}

// Gives the turn to the next thread until this one is ready again.
void Machine::wait(State state) {
    const uint32_t self = thread_index.x;
    threads_[self].state = state;
    if (ready_.is_empty()) {
        report_stuck();
        abandon();
    }
    const uint32_t next = ready_.pop();
    if (next == self) {
        threads_[self].state = State::Ready;
        return;
    }
    void *top = resume(next);
    concord_emulator_switch(&threads_[self].stack_top, top);
}

// A fiber: runs its thread, then those that have not started yet, on the same stack.
void Machine::fiber() { machine->live(); }

void Machine::live() {
    for (;;) {
        const Launch &launch = *launch_;
        launch.kernel->call(launch.arguments);
        Thread &self = threads_[thread_index.x];
        const uint32_t stack = self.stack;
        self.state = State::Left;
        ++left_;
        if (ready_.is_empty()) {
            if (left_ != launch.threads) {
                report_stuck();
                failed_ = true;
            }
            stacks_.put(stack);
            concord_emulator_switch(&self.stack_top, main_top_);
        }
        const uint32_t next = ready_.pop();
        if (threads_[next].stack == NO_STACK) {
            threads_[next].stack = stack;
            thread_index.x = next;
            continue;
        }
        stacks_.put(stack);
        concord_emulator_switch(&self.stack_top, resume(next));
    }
}

void Machine::barrier() {
    const uint32_t threads = launch_->threads;
    if (++at_barrier_ == threads) {
        at_barrier_ = 0;
        const Order order = launch_->order;
        uint32_t thread = turns_.first(order, threads);
        for (uint32_t i = 0; i < threads; ++i) {
            ready_.push(thread);
            thread = turns_.next(thread);
        }
    }
    wait(State::AtBarrier);
}

uint8_t *Machine::come(Collective what, size_t bytes) {
    Warp &warp = warps_[thread_index.x / 32];
    if (warp.arrived == 0) {
        warp.what = what;
        warp.bytes = static_cast<uint32_t>(bytes);
    } else if (warp.what != what || warp.bytes != bytes) {
        const char *theirs = name_of(warp.what);
        describe("comes to %s while lanes of its warp are in %s", name_of(what), theirs);
        abandon();
    }
    return warp.lanes[warp.turn % 2];
}

void Machine::meet(Apply apply, void *context) {
    const uint32_t self = thread_index.x, lane = self % 32;
    Warp &warp = warps_[self / 32];
    if (++warp.arrived < 32) return wait(State::InWarp);
    uint8_t *lanes = warp.lanes[warp.turn % 2];
    warp.arrived = 0;
    ++warp.turn;
    if (apply != nullptr) apply(lanes, context);
    // The others of the warp go on before other warps do: warps run as far ahead as barriers let
    // them.
    for (uint32_t i = 1; i < 32; ++i) {
        const uint32_t other = launch_->order == Order::Forward ? 32 - i : i;
        ready_.push_front(self - lane + (lane + other) % 32);
    }
}

void *Machine::variable(const void *key, size_t bytes) {
    for (uint32_t i = 0; i < variable_count_; ++i)
        if (variables_[i].key == key) return variables_[i].place;
    const bool fits = bytes <= STATIC_BYTES_MAX - static_bytes_;
    if (!fits || variable_count_ == sizeof variables_ / sizeof *variables_) {
        describe("has %zu bytes of static shared memory, and wants %zu more", static_bytes_, bytes);
        abandon();
    }
    void *place = static_shared_ + static_bytes_;
    static_bytes_ = (static_bytes_ + bytes + 15) / 16 * 16;
    variables_[variable_count_++] = {key, place};
    memset(place, 0xff, bytes);
    return place;
}

bool Machine::run_block() {
    const Launch &launch = *launch_;
    for (uint32_t t = 0; t < launch.threads; ++t) threads_[t] = {nullptr, NO_STACK, State::Ready};
    for (uint32_t w = 0; w < (launch.threads + 31) / 32; ++w) warps_[w].arrived = 0;
    memset(shared_, 0xff, launch.shared);
    variable_count_ = at_barrier_ = left_ = 0;
    static_bytes_ = 0;
    uint32_t thread = turns_.first(launch.order, launch.threads);
    for (uint32_t i = 0; i < launch.threads; ++i) {
        ready_.push(thread);
        thread = turns_.next(thread);
    }
    in_kernel_ = true;
    concord_emulator_switch(&main_top_, resume(ready_.pop()));
    in_kernel_ = false;
    return !failed_;
}

bool Machine::prepare(const Launch &launch) {
    launch_ = &launch;
    failed_ = false;
    fault = 0;
    ready_.clear();
    turns_.seed(launch.seed);
    block_size = {launch.threads, 1, 1};
    grid_size = {launch.blocks[0], launch.blocks[1], launch.blocks[2]};
    if (warps_ == nullptr) warps_ = static_cast<Warp *>(calloc(THREADS_MAX / 32, sizeof(Warp)));
    if (shared_ == nullptr || shared_bytes_ != launch.shared) {
        if (shared_ != nullptr) concord_emulator_free(shared_, shared_bytes_);
        shared_ = concord_emulator_alloc(launch.shared);
        shared_bytes_ = launch.shared;
    }
    if (warps_ == nullptr || shared_ == nullptr || !stacks_.reserve(launch.threads)) {
        snprintf(error, sizeof error, "the host has no memory for the stacks of its threads");
        return false;
    }
    return true;
}

bool Machine::run(const Launch &launch) {
    bool runs = prepare(launch);
    const uint64_t x = launch.blocks[0], y = launch.blocks[1], blocks = x * y * launch.blocks[2];
    // Blocks have turns of their own: those of threads change with every barrier.
    Turns turns;
    turns.seed(~launch.seed);
    uint64_t block = turns.first(launch.order, blocks);
    for (uint64_t i = 0; i < blocks && runs; ++i) {
        block_index = {uint32_t(block % x), uint32_t(block / x % y), uint32_t(block / x / y)};
        runs = run_block();
        block = turns.next(block);
    }
    return runs;
}

Machine::~Machine() {
    machine = nullptr;
    free(warps_);
    if (shared_ != nullptr) concord_emulator_free(shared_, shared_bytes_);
}

} // namespace

void barrier() { machine->barrier(); }

uint8_t *come(Collective what, size_t bytes) { return machine->come(what, bytes); }
void meet(Apply apply, void *context) { machine->meet(apply, context); }

void *shared_variable(const void *key, size_t bytes) { return machine->variable(key, bytes); }

void fail(const char *reason) {
    machine->describe("%s", reason);
    machine->abandon();
}

void *dynamic_shared() { return machine->shared(); }

bool in_kernel() { return machine != nullptr && machine->in_kernel(); }

void fail_at(const void *address, const char *what) {
    machine->describe("%s", what);
    machine->fault = reinterpret_cast<uint64_t>(address);
    machine->abandon();
}

} // namespace emulator

extern "C" int concord_emulator_launch(const emulator::Launch *launch, char *message,
                                       uint64_t capacity, uint64_t *fault) {
    using emulator::machine;
    // On the heap: every thread of the process pays for thread-local memory.
    static thread_local std::unique_ptr<emulator::Machine> of_this_thread;
    emulator::catch_faults();
    if (!of_this_thread) of_this_thread = std::make_unique<emulator::Machine>();
    machine = of_this_thread.get();
    const bool runs = machine->run(*launch);
    *fault = machine->fault;
    if (!runs) snprintf(message, capacity, "%s", machine->error);
    return runs ? 0 : 1;
}
