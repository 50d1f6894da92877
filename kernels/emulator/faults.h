// Faults of the host's processor while a kernel runs end the launch instead of the process.
#pragma once

namespace emulator {

// Takes the signals of faults over, once a process; those of other code go on to who had them.
void catch_faults();

// Whether this thread of the host is in a kernel.
bool in_kernel();

// Ends the launch with an error that names the thread and keeps the address.
[[noreturn]] void fail_at(const void *address, const char *what);

} // namespace emulator
