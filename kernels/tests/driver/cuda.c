// A driver for tests: libcuda.so with the functions that src/gpu/nvidia calls, over host memory.
//
// It is as lazy as the interface allows. Work in a stream is done only when a caller waits for it,
// so a copy reads its source late and writes its target late: a missing dependency, or host memory
// that is reused too early, gives wrong bytes. It knows one kernel, `scaled` of elementwise.cu, and
// counts everything that has to be given back.
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

enum {
    SUCCESS = 0,
    INVALID_VALUE = 1,
    OUT_OF_MEMORY = 2,
    NO_DEVICE = 100,
    NOT_FOUND = 500,
    ILLEGAL_ADDRESS = 700
};

// What a test sets, and what it reads: the same fields stand in src/gpu/nvidia/tests.rs.
struct Settings {
    int version, init, count, major, minor;
    int lost_after;         // Launches until one breaks down; below 0 for never.
    uint64_t memory;        // Bytes of the card.
    int live;               // Things that are not given back.
    int contexts;           // Times that the context is retained.
    int launches;
    unsigned blocks[3], threads, shared;
    int dynamic_shared_max; // What the last function was allowed.
    int flushes;            // Times that the host waited.
};
struct Settings fake_settings;
static uint64_t held;
static int lost;

typedef struct Stream Stream;
typedef struct Event { Stream *stream; size_t position; } Event;
typedef struct Op {
    enum { FILL, COPY, WAIT, SCALED, BREAK } kind;
    char *to; const char *from; size_t bytes; int byte; float factor; Event event;
} Op;
struct Stream { Op *ops; size_t len, capacity, done; };

static void run(Stream *stream, size_t until);

static void apply(Op *op) {
    switch (op->kind) {
    case FILL: memset(op->to, op->byte, op->bytes); break;
    case COPY: memmove(op->to, op->from, op->bytes); break;
    case WAIT: if (op->event.stream) run(op->event.stream, op->event.position); break;
    case SCALED:
        for (size_t i = 0; i < op->bytes; i++)
            ((float *)op->to)[i] = ((const float *)op->from)[i] * op->factor;
        break;
    case BREAK: lost = ILLEGAL_ADDRESS; break;
    }
}

static void run(Stream *stream, size_t until) {
    while (stream->done < until && !lost) {
        Op op = stream->ops[stream->done++];
        apply(&op);
    }
}

static int put(Stream *stream, Op op) {
    if (lost) return lost;
    if (!stream) return INVALID_VALUE;
    if (stream->len == stream->capacity) {
        stream->capacity = stream->capacity ? 2 * stream->capacity : 64;
        stream->ops = realloc(stream->ops, stream->capacity * sizeof(Op));
    }
    stream->ops[stream->len++] = op;
    return SUCCESS;
}

// Every stream, so that a call that waits for all of them can.
static Stream *streams[64];

static int wait_for_all(void) {
    fake_settings.flushes++;
    for (int i = 0; i < 64; i++)
        if (streams[i]) run(streams[i], streams[i]->len);
    return lost;
}

void fake_reset(void) { held = 0; lost = 0; }

int cuInit(unsigned flags) { return flags ? INVALID_VALUE : fake_settings.init; }
int cuDriverGetVersion(int *version) { *version = fake_settings.version; return SUCCESS; }
int cuDeviceGetCount(int *count) { *count = fake_settings.count; return SUCCESS; }
int cuDeviceGet(int *device, int ordinal) { *device = 100 + ordinal; return SUCCESS; }
int cuDeviceGetName(char *name, int len, int device) {
    (void)device;
    strncpy(name, "a card for tests", (size_t)len);
    return SUCCESS;
}
int cuDeviceGetAttribute(int *value, int attribute, int device) {
    if (device < 100) return INVALID_VALUE;
    switch (attribute) {
    case 75: *value = fake_settings.major; return SUCCESS;
    case 76: *value = fake_settings.minor; return SUCCESS;
    case 16: *value = 7; return SUCCESS;       // Multiprocessors.
    case 97: *value = 101376; return SUCCESS;  // Shared memory that a block may ask for.
    default: return INVALID_VALUE;
    }
}

static int the_context;
static _Thread_local void *current;
int cuDevicePrimaryCtxRetain(void **context, int device) {
    (void)device;
    fake_settings.contexts++;
    *context = &the_context;
    return SUCCESS;
}
int cuDevicePrimaryCtxRelease_v2(int device) {
    (void)device;
    fake_settings.contexts--;
    return SUCCESS;
}
int cuCtxSetCurrent(void *context) { current = context; return SUCCESS; }
// Calls on a thread that has not bound the context are refused, as CUDA does.
#define IN_CONTEXT if (!current) return 201; if (lost) return lost

int cuStreamCreate(Stream **stream, unsigned flags) {
    IN_CONTEXT;
    (void)flags;
    *stream = calloc(1, sizeof(Stream));
    for (int i = 0; i < 64; i++)
        if (!streams[i]) { streams[i] = *stream; break; }
    fake_settings.live++;
    return SUCCESS;
}
int cuStreamDestroy_v2(Stream *stream) {
    for (int i = 0; i < 64; i++)
        if (streams[i] == stream) streams[i] = 0;
    free(stream->ops);
    free(stream);
    fake_settings.live--;
    return SUCCESS;
}
int cuStreamSynchronize(Stream *stream) {
    IN_CONTEXT;
    fake_settings.flushes++;
    run(stream, stream->len);
    return lost;
}
int cuStreamWaitEvent(Stream *stream, Event *event, unsigned flags) {
    IN_CONTEXT;
    (void)flags;
    return put(stream, (Op){.kind = WAIT, .event = *event});
}

int cuEventCreate(Event **event, unsigned flags) {
    IN_CONTEXT;
    (void)flags;
    *event = calloc(1, sizeof(Event));
    fake_settings.live++;
    return SUCCESS;
}
int cuEventDestroy_v2(Event *event) { free(event); fake_settings.live--; return SUCCESS; }
int cuEventRecord(Event *event, Stream *stream) {
    IN_CONTEXT;
    event->stream = stream;
    event->position = stream->len;
    return SUCCESS;
}
int cuEventSynchronize(Event *event) {
    IN_CONTEXT;
    fake_settings.flushes++;
    if (event->stream) run(event->stream, event->position);
    return lost;
}
int cuEventElapsedTime(float *milliseconds, Event *start, Event *end) {
    IN_CONTEXT;
    if (end->stream->done < end->position) return 600;
    *milliseconds = (float)(end->position - start->position);
    return SUCCESS;
}

int cuMemGetInfo_v2(size_t *free_bytes, size_t *total) {
    IN_CONTEXT;
    *total = fake_settings.memory;
    *free_bytes = fake_settings.memory - held;
    return SUCCESS;
}
// The size stands before what is given out.
int cuMemAlloc_v2(uint64_t *address, size_t bytes) {
    IN_CONTEXT;
    if (held + bytes > fake_settings.memory) return OUT_OF_MEMORY;
    char *memory = malloc(bytes + 256);
    memcpy(memory, &bytes, sizeof bytes);
    memset(memory + 256, 0xff, bytes);
    held += bytes;
    fake_settings.live++;
    *address = (uint64_t)(memory + 256);
    return SUCCESS;
}
int cuMemFree_v2(uint64_t address) {
    IN_CONTEXT;
    wait_for_all();
    char *memory = (char *)address - 256;
    size_t bytes;
    memcpy(&bytes, memory, sizeof bytes);
    memset(memory, 0xee, bytes + 256);
    held -= bytes;
    free(memory);
    fake_settings.live--;
    return lost;
}
int cuMemHostAlloc(void **memory, size_t bytes, unsigned flags) {
    IN_CONTEXT;
    (void)flags;
    *memory = malloc(bytes);
    memset(*memory, 0xaa, bytes);
    fake_settings.live++;
    return SUCCESS;
}
int cuMemFreeHost(void *memory) { free(memory); fake_settings.live--; return SUCCESS; }

int cuMemsetD8Async(uint64_t to, unsigned char byte, size_t bytes, Stream *stream) {
    IN_CONTEXT;
    return put(stream, (Op){.kind = FILL, .to = (char *)to, .byte = byte, .bytes = bytes});
}
static int copy(char *to, const char *from, size_t bytes, Stream *stream) {
    IN_CONTEXT;
    return put(stream, (Op){.kind = COPY, .to = to, .from = from, .bytes = bytes});
}
int cuMemcpyDtoDAsync_v2(uint64_t to, uint64_t from, size_t bytes, Stream *stream) {
    return copy((char *)to, (const char *)from, bytes, stream);
}
int cuMemcpyHtoDAsync_v2(uint64_t to, const void *from, size_t bytes, Stream *stream) {
    return copy((char *)to, from, bytes, stream);
}
int cuMemcpyDtoHAsync_v2(void *to, uint64_t from, size_t bytes, Stream *stream) {
    return copy(to, (const char *)from, bytes, stream);
}

int cuModuleLoadData(char **module, const char *image) {
    IN_CONTEXT;
    if (strncmp(image, "machine code", 12) && strncmp(image, "\x7f" "ELF", 4)) return 200;
    *module = malloc(1);
    fake_settings.live++;
    return SUCCESS;
}
int cuModuleUnload(char *module) { free(module); fake_settings.live--; return SUCCESS; }
int cuModuleGetFunction(int **function, char *module, const char *name) {
    IN_CONTEXT;
    static int scaled;
    (void)module;
    *function = &scaled;
    return strcmp(name, "scaled") ? NOT_FOUND : SUCCESS;
}
int cuFuncGetAttribute(int *value, int attribute, int *function) {
    IN_CONTEXT;
    (void)function;
    *value = 1024; // Static shared memory.
    return attribute == 1 ? SUCCESS : INVALID_VALUE;
}
int cuFuncSetAttribute(int *function, int attribute, int value) {
    IN_CONTEXT;
    (void)function;
    fake_settings.dynamic_shared_max = value;
    return attribute == 8 ? SUCCESS : INVALID_VALUE;
}
int cuLaunchKernel(int *function, unsigned x, unsigned y, unsigned z, unsigned tx, unsigned ty,
                   unsigned tz, unsigned shared, Stream *stream, void **arguments, void **extra) {
    IN_CONTEXT;
    (void)function;
    if (!x || !y || !z || tx > 1024 || ty != 1 || tz != 1 || extra) return INVALID_VALUE;
    if ((int)shared > fake_settings.dynamic_shared_max) return INVALID_VALUE;
    struct Settings *s = &fake_settings;
    s->blocks[0] = x, s->blocks[1] = y, s->blocks[2] = z, s->threads = tx, s->shared = shared;
    if (s->launches++ == s->lost_after) return put(stream, (Op){.kind = BREAK});
    Op op = {.kind = SCALED};
    uint64_t from, to, len;
    memcpy(&from, arguments[0], 8);
    memcpy(&to, arguments[1], 8);
    memcpy(&op.factor, arguments[2], 4);
    memcpy(&len, arguments[3], 8);
    op.from = (const char *)from, op.to = (char *)to, op.bytes = len;
    return put(stream, op);
}

int cuGetErrorName(int code, const char **name) {
    *name = code == ILLEGAL_ADDRESS ? "CUDA_ERROR_ILLEGAL_ADDRESS" : "CUDA_ERROR_FOR_TESTS";
    return SUCCESS;
}
int cuGetErrorString(int code, const char **text) {
    *text = code == ILLEGAL_ADDRESS ? "an illegal memory access was encountered"
                                    : "a test asked for it";
    return SUCCESS;
}
