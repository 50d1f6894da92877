#include "faults.h"
#include <csignal>
#include <cstring>
#include <mutex>

namespace emulator {

namespace {

constexpr int SIGNALS[] = {SIGSEGV, SIGBUS, SIGFPE};
struct sigaction before[NSIG];

const char *text_of(int signal) {
    return signal == SIGFPE ? "divides an integer by zero"
                            : "touches memory that no allocation covers";
}

// Passes a fault that is not a kernel's to the handler that was there before.
void pass_on(int signal, siginfo_t *info, void *context) {
    const struct sigaction &old = before[signal];
    if (old.sa_flags & SA_SIGINFO) {
        old.sa_sigaction(signal, info, context);
    } else if (old.sa_handler != SIG_DFL && old.sa_handler != SIG_IGN) {
        old.sa_handler(signal);
    } else {
        // The instruction runs again when this returns, and then ends the process.
        sigaction(signal, &old, nullptr);
    }
}

// The faulting instruction is the kernel's, so no host code is interrupted half-way: the handler
// may jump back to the launch. It runs on the host thread's own signal stack where there is one,
// and no signal is blocked meanwhile.
void on_fault(int signal, siginfo_t *info, void *context) {
    if (in_kernel()) fail_at(info->si_addr, text_of(signal));
    pass_on(signal, info, context);
}

} // namespace

void catch_faults() {
    static std::once_flag once;
    std::call_once(once, [] {
        struct sigaction ours;
        memset(&ours, 0, sizeof ours);
        ours.sa_sigaction = on_fault;
        ours.sa_flags = SA_SIGINFO | SA_ONSTACK | SA_NODEFER;
        for (int signal : SIGNALS) sigaction(signal, &ours, &before[signal]);
    });
}

} // namespace emulator
