// Who goes next: the order in which threads and blocks take turns, and the queue of ready threads.
#pragma once
#include "launch.h"

namespace emulator {

// Walks 0 .. count in an order that a seed gives: from a start, by a stride that shares no factor
// with the count, around the end.
class Turns {
  public:
    void seed(uint64_t seed) { state_ = seed; }

    // The first turn; shuffled turns get a new order.
    uint64_t first(Order order, uint64_t count) {
        count_ = count;
        stride_ = order == Order::Reverse ? count - 1 : 1;
        if (order == Order::Forward || count < 2) return 0;
        if (order == Order::Reverse) return count - 1;
        stride_ = random() % count;
        while (divisor(stride_, count) != 1) stride_ = (stride_ + 1) % count;
        return random() % count;
    }

    // The next turn: each of 0 .. count comes once before the first comes again.
    uint64_t next(uint64_t turn) const {
        const uint64_t after = turn + stride_;
        return after >= count_ ? after - count_ : after;
    }

  private:
    static uint64_t divisor(uint64_t a, uint64_t b) {
        while (a != 0) {
            const uint64_t rest = b % a;
            b = a;
            a = rest;
        }
        return b;
    }

    uint64_t random() {
        state_ += 0x9e3779b97f4a7c15u;
        uint64_t z = state_;
        z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
        z = (z ^ z >> 27) * 0x94d049bb133111ebu;
        return z ^ z >> 31;
    }

    uint64_t state_ = 0, count_ = 1, stride_ = 1;
};

// Threads that are ready, each at most once.
class Queue {
  public:
    void clear() { start_ = end_ = 0; }
    bool is_empty() const { return start_ == end_; }
    void push(uint64_t thread) { slots_[end_++ % SLOTS] = static_cast<uint16_t>(thread); }
    void push_front(uint32_t thread) { slots_[--start_ % SLOTS] = static_cast<uint16_t>(thread); }
    uint32_t pop() { return slots_[start_++ % SLOTS]; }

  private:
    static constexpr uint32_t SLOTS = 2048;
    uint16_t slots_[SLOTS];
    uint32_t start_ = 0, end_ = 0;
};

} // namespace emulator
