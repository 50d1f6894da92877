// Faults of the host's processor while a kernel runs end the launch instead of the process.
#pragma once

namespace emulator {

// Installs handlers for the signals of faults, once per process; faults of other code are passed to
// the handlers that were there before.
void catch_faults();

// Whether this thread of the host is in a kernel.
bool in_kernel();

// Ends the launch with an error that names the thread and keeps the address.
[[noreturn]] void fail_at(const void *address, const char *what);

} // namespace emulator
