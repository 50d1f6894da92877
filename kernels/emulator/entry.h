// How a kernel compiled for the host is found and called: with an array of pointers to its
// arguments, as the driver's launch gives them. kernels/src/gpu/emulator.rs mirrors the structs.
#pragma once
#include <cstddef>
#include <cstdint>
#include <type_traits>
#include <utility>

namespace emulator {

// A kernel. `kinds` has one letter per argument: p for a pointer, f and d for f32 and f64, i and l
// for integers of 4 and 8 bytes.
struct Entry {
    const char *name;
    const char *kinds;
    void (*call)(void **arguments);
    uint32_t arguments;
    uint32_t threads_max;
};

// A .cu file as one GPU generation compiles it; `arch` is 0 where all compile it alike.
struct Module {
    const char *name;
    const Entry *entries;
    uint32_t count;
    uint32_t arch;
};

template <typename T> constexpr char kind_of() {
    if constexpr (std::is_pointer_v<T>) return 'p';
    else if constexpr (std::is_same_v<T, float>) return 'f';
    else if constexpr (std::is_same_v<T, double>) return 'd';
    else {
        static_assert(std::is_integral_v<T>, "arguments are pointers and numbers");
        static_assert(sizeof(T) == 4 || sizeof(T) == 8, "numbers of 4 or 8 bytes");
        return sizeof(T) == 4 ? 'i' : 'l';
    }
}

template <auto Kernel> struct Caller;
template <typename... Types, void (*Kernel)(Types...)> struct Caller<Kernel> {
    static constexpr char kinds[] = {kind_of<Types>()..., 0};

    static void call(void **arguments) { spread(arguments, std::index_sequence_for<Types...>{}); }

    template <std::size_t... I> static void spread(void **arguments, std::index_sequence<I...>) {
        (void)arguments;
        Kernel(*static_cast<Types *>(arguments[I])...);
    }

    static constexpr Entry entry(const char *name, uint32_t threads_max) {
        return {name, kinds, call, sizeof...(Types), threads_max};
    }
};

} // namespace emulator
