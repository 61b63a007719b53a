// HIP on the CPU: the part of the HIP language and runtime that kernels and their launchers use, so that the same
// .hip source compiles as C++17 and runs on the host. Not here: `kernel<<<..>>>(..)` and `extern __shared__`, which are
// no C++, device memory and events, which belong to the launcher's caller, and bf16 / fp8 types.
//
// A launch runs to its end on the calling thread, one block after another; host threads may launch at the same time.
// The threads of a block are started in order on a fibre, and go on to the next thread on the same fibre until one
// has to wait (__syncthreads, a warp operation). A kernel that never waits is thus a plain loop over its threads.
//
// Differences from a GPU that a kernel can see: a block never runs beside another, so a kernel that waits for another
// block does not end; shared memory starts as 0xff bytes in each block, static one from the second block on that a library
// has ever run; a warp operation that reads a lane which takes no
// part gets all bits set, where a GPU leaves the value undefined. A barrier that not every thread of the block
// reaches is reported and aborts.
#pragma once

#include <link.h>
#include <math.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <new>
#include <tuple>
#include <type_traits>
#include <utility>
#include <vector>

#define __global__
#define __device__
#define __host__
#define __constant__
#define __shared__ static thread_local
#define __launch_bounds__(...)
#define __forceinline__ inline __attribute__((always_inline))
#define HIP_DYNAMIC_SHARED(type, name) type* name = static_cast<type*>(hip_host::dynamic_shared)

#define HIP_HOST_VECTOR(type, name)                                                       \
    struct alignas(2 * sizeof(type)) name##2 { type x, y; };                              \
    struct name##3 { type x, y, z; };                                                     \
    struct alignas(4 * sizeof(type)) name##4 { type x, y, z, w; };                        \
    inline name##2 make_##name##2(type x, type y) { return {x, y}; }                      \
    inline name##3 make_##name##3(type x, type y, type z) { return {x, y, z}; }           \
    inline name##4 make_##name##4(type x, type y, type z, type w) { return {x, y, z, w}; }
HIP_HOST_VECTOR(signed char, char)
HIP_HOST_VECTOR(unsigned char, uchar)
HIP_HOST_VECTOR(short, short)
HIP_HOST_VECTOR(unsigned short, ushort)
HIP_HOST_VECTOR(int, int)
HIP_HOST_VECTOR(unsigned int, uint)
HIP_HOST_VECTOR(float, float)
#undef HIP_HOST_VECTOR

struct dim3 {
    uint32_t x, y, z;
    constexpr dim3(uint32_t x = 1, uint32_t y = 1, uint32_t z = 1) : x(x), y(y), z(z) {}
};

inline thread_local uint3 threadIdx = {};
inline thread_local uint3 blockIdx = {};
inline thread_local dim3 blockDim;
inline thread_local dim3 gridDim;
constexpr int warpSize = 64;

// Runtime

enum hipError_t { hipSuccess = 0, hipErrorInvalidValue = 1, hipErrorInvalidConfiguration = 9 };
typedef struct ihipStream_t* hipStream_t;

struct hipDeviceProp_t {
    char name[256];
    char gcnArchName[256];
    int warpSize;
    int maxThreadsPerBlock;
    size_t sharedMemPerBlock;
};

// Called before each launch with the kernel's address, where somebody who has opened the library wants to know.
extern "C" {
__attribute__((weak, visibility("default"))) void (*hip_host_on_launch)(const void* kernel) = nullptr;
// The same with a number that stands for the grid and for the arguments that are no pointers. Called in its place.
__attribute__((weak, visibility("default"))) void (*hip_host_on_configured_launch)(const void* kernel,
                                                                                   uint64_t configuration) = nullptr;
}

namespace hip_host {

constexpr uint32_t max_threads = 1024;
constexpr size_t max_dynamic_shared = 64 * 1024;

inline thread_local hipError_t last_error = hipSuccess;
inline thread_local void* dynamic_shared = nullptr;

[[noreturn]] inline void fail(const char* what) {
    std::fprintf(stderr, "hip host: %s\n", what);
    std::abort();
}

// A call stack of its own. `resume` runs it until it calls `suspend`.
#if defined(__ELF__) && (defined(__x86_64__) || defined(__aarch64__))

// Saves the callee-saved registers on the running stack, its pointer in *from, and goes on where `to` was left.
extern "C" __attribute__((visibility("hidden"))) void hip_host_switch(void** from, void* to);

// clang-format off
asm(".pushsection .text.hip_host_switch,\"axG\",%progbits,hip_host_switch,comdat\n"
    ".weak hip_host_switch\n"
    ".hidden hip_host_switch\n"
    ".type hip_host_switch,%function\n"
    ".balign 16\n"
    "hip_host_switch:\n"
#if defined(__x86_64__)
    "pushq %rbp\n" "pushq %rbx\n" "pushq %r12\n" "pushq %r13\n" "pushq %r14\n" "pushq %r15\n"
    "movq %rsp, (%rdi)\n"
    "movq %rsi, %rsp\n"
    "popq %r15\n" "popq %r14\n" "popq %r13\n" "popq %r12\n" "popq %rbx\n" "popq %rbp\n"
    "popq %rcx\n"  // a ret would be mispredicted: the predictor's return stack is the other fibre's
    "jmpq *%rcx\n"
#else
    "sub sp, sp, #160\n"
    "stp x19, x20, [sp]\n"      "stp x21, x22, [sp, #16]\n" "stp x23, x24, [sp, #32]\n"
    "stp x25, x26, [sp, #48]\n" "stp x27, x28, [sp, #64]\n" "stp x29, x30, [sp, #80]\n"
    "stp d8, d9, [sp, #96]\n"   "stp d10, d11, [sp, #112]\n"
    "stp d12, d13, [sp, #128]\n" "stp d14, d15, [sp, #144]\n"
    "mov x9, sp\n"
    "str x9, [x0]\n"
    "mov sp, x1\n"
    "ldp x19, x20, [sp]\n"      "ldp x21, x22, [sp, #16]\n" "ldp x23, x24, [sp, #32]\n"
    "ldp x25, x26, [sp, #48]\n" "ldp x27, x28, [sp, #64]\n" "ldp x29, x30, [sp, #80]\n"
    "ldp d8, d9, [sp, #96]\n"   "ldp d10, d11, [sp, #112]\n"
    "ldp d12, d13, [sp, #128]\n" "ldp d14, d15, [sp, #144]\n"
    "add sp, sp, #160\n"
    "ret\n"
#endif
    ".size hip_host_switch, .-hip_host_switch\n"
    ".popsection\n");
// clang-format on

class Context {
   public:
    void init(void* stack, size_t size, void (*entry)()) {
        void** top = reinterpret_cast<void**>(static_cast<char*>(stack) + size);
#if defined(__x86_64__)
        constexpr int frame = 8, entry_slot = 6;  // six registers, the entry, a null return address
#else
        constexpr int frame = 20, entry_slot = 11;  // x19 to x29, the entry in x30, d8 to d15
#endif
        pointer_ = top - frame;
        std::fill_n(top - frame, frame, nullptr);
        top[entry_slot - frame] = reinterpret_cast<void*>(entry);
    }
    void resume() { hip_host_switch(&caller_, pointer_); }
    void suspend() { hip_host_switch(&pointer_, caller_); }

   private:
    void* pointer_ = nullptr;
    void* caller_ = nullptr;
};

#else
}  // namespace hip_host
#include <ucontext.h>
namespace hip_host {

class Context {
   public:
    void init(void* stack, size_t size, void (*entry)()) {
        getcontext(&self_);
        self_.uc_stack.ss_sp = stack;
        self_.uc_stack.ss_size = size;
        self_.uc_link = nullptr;
        makecontext(&self_, entry, 0);
    }
    void resume() { swapcontext(&caller_, &self_); }
    void suspend() { swapcontext(&self_, &caller_); }

   private:
    ucontext_t self_;
    ucontext_t caller_;
};

#endif

class Fiber {
   public:
    Fiber() = default;
    Fiber(const Fiber&) = delete;
    Fiber& operator=(const Fiber&) = delete;
    ~Fiber() {
        if (stack_) munmap(stack_, stack_bytes);
    }
    void create(void (*entry)(), uint32_t index) {
        stack_ = mmap(nullptr, stack_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        const size_t guard = static_cast<size_t>(sysconf(_SC_PAGESIZE));
        if (stack_ == MAP_FAILED || mprotect(stack_, guard, PROT_NONE) != 0) {
            fail("no memory for the stack of a kernel's thread");
        }
        // Stacks that all end at the same offset in a page would contend for the same few cache sets.
        context.init(stack_, stack_bytes - index % 32 * 128, entry);
    }
    bool created() const { return stack_ != nullptr; }

    Context context;
    bool waited = false;  // the thread on this fibre has been suspended at least once

   private:
    static constexpr size_t stack_bytes = 128 * 1024;
    void* stack_ = nullptr;
};

struct Site {
    const char* file;
    const char* function;
    int line;
    bool operator==(const Site& other) const {
        return line == other.line && (file == other.file || std::strcmp(file, other.file) == 0);
    }
};

// Fills shared memory that kernels declare statically. It is thread-local memory of their library, beside variables of this
// header and of launchers. A kernel can change nothing else of that, so what changes while its blocks run is shared memory.
class StaticShared {
   public:
    // Before the first block of a launch. `code` is the kernel, `machine` what is no shared memory although it changes.
    void begin(const void* code, const void* machine, size_t machine_size);

    // Behind each block: what was in shared memory is not there for the next.
    void end_block();

   private:
    // So many blocks of a launch are looked at.
    static constexpr uint32_t observed = 2;

    struct Range {
        const unsigned char* begin;
        const unsigned char* end;
    };

    static int find(dl_phdr_info* info, size_t, void* self);
    bool is_own(const unsigned char* at) const;
    void remember();

    const void* code_ = nullptr;
    unsigned char* begin_ = nullptr;  // thread-local memory of the kernel's library, on this thread
    size_t size_ = 0;
    uint32_t blocks_ = 0;  // that have run in this launch
    Range own_[7] = {};    // variables of this header
    std::vector<unsigned char> before_;
    std::vector<bool> shared_;  // by words of four bytes
    std::vector<Range> ranges_;
};

// Runs launches, one at a time; every host thread has its own.
class Machine {
   public:
    void run(dim3 grid, dim3 block, size_t shared_bytes, const void* code, void (*body)(void*), void* argument);

    void barrier(Site site) { wait(State::at_barrier, site); }

    uint32_t lane() const { return running_ % warpSize; }

    // Hands `value` to the other lanes that are at the same warp operation; `value_of` and `lanes` hold theirs until
    // this thread waits again.
    void exchange(uint64_t value, Site site) {
        threads_[running_].value = value;
        wait(State::in_warp_operation, site);
    }
    uint64_t lanes() const { return lanes_; }
    uint64_t value_of(uint32_t lane) const { return lanes_ >> lane & 1 ? values_[lane] : ~uint64_t{0}; }

   private:
    enum class State : uint8_t { running, at_barrier, in_warp_operation, returned };
    struct Thread {
        State state;
        uint3 index;
        Site site;
        uint64_t value;
        Fiber* fiber;
    };

    static void fiber_main();
    void enter_block();
    bool start_next();
    void set_running(uint32_t thread);
    uint3 index_of(uint32_t thread) const;
    Fiber* take_fiber();
    void wait(State state, Site site);
    void resume(uint32_t thread);
    void finish_warp(uint32_t first);
    void pass_barrier();
    [[noreturn]] void report_divergence() const;

    void (*body_)(void*) = nullptr;
    void* argument_ = nullptr;
    uint32_t count_ = 0;            // threads of a block
    uint64_t blocks_ = 0;           // blocks of the grid
    uint64_t block_ = 0;            // the running block
    uint32_t next_ = 0;             // the thread of the block being started
    uint32_t running_ = 0;          // the thread that runs
    uint32_t waiting_ = 0;          // threads that have waited and not returned
    Fiber* current_ = nullptr;      // the fibre that runs
    size_t shared_bytes_ = 0;
    uint64_t lanes_ = 0;            // lanes of the last warp operation, and what they handed over
    uint64_t values_[warpSize] = {};
    uint32_t free_count_ = 0;
    Fiber* free_[max_threads] = {};
    Thread threads_[max_threads] = {};
    Fiber fibers_[max_threads];
    uint32_t fibers_created_ = 0;
    StaticShared static_shared_;
    alignas(128) unsigned char shared_[max_dynamic_shared];
};

inline Machine& machine() {
    static thread_local Machine instance;
    return instance;
}

inline void StaticShared::begin(const void* code, const void* machine, size_t machine_size) {
    code_ = code;
    blocks_ = 0;
    unsigned char* const last = begin_;
    begin_ = nullptr;
    dl_iterate_phdr(find, this);
    if (!begin_) return;  // the library has none, or none on this thread so far
    if (begin_ != last) {
        shared_.assign(size_ / 4, false);
        ranges_.clear();
    }
    const auto range = [](const void* at, size_t size) {
        const auto* const first = static_cast<const unsigned char*>(at);
        return Range{first, first + size};
    };
    const Range own[] = {range(&threadIdx, sizeof threadIdx), range(&blockIdx, sizeof blockIdx),
                         range(&blockDim, sizeof blockDim), range(&gridDim, sizeof gridDim),
                         range(&last_error, sizeof last_error), range(&dynamic_shared, sizeof dynamic_shared),
                         range(machine, machine_size)};
    std::copy(std::begin(own), std::end(own), own_);
    before_.assign(begin_, begin_ + size_);
}

inline int StaticShared::find(dl_phdr_info* info, size_t, void* self) {
    StaticShared& shared = *static_cast<StaticShared*>(self);
    const auto code = reinterpret_cast<uintptr_t>(shared.code_);
    bool holds_code = false;
    const ElfW(Phdr)* local = nullptr;
    for (int i = 0; i < info->dlpi_phnum; ++i) {
        const ElfW(Phdr)& part = info->dlpi_phdr[i];
        if (part.p_type == PT_TLS) local = &part;
        const uintptr_t start = info->dlpi_addr + part.p_vaddr;
        holds_code |= part.p_type == PT_LOAD && code >= start && code - start < part.p_memsz;
    }
    if (!holds_code) return 0;
    if (local && info->dlpi_tls_data) {
        shared.begin_ = static_cast<unsigned char*>(info->dlpi_tls_data);
        shared.size_ = local->p_memsz / 4 * 4;
    }
    return 1;
}

inline bool StaticShared::is_own(const unsigned char* at) const {
    for (const Range& range : own_) {
        if (at + 4 > range.begin && at < range.end) return true;
    }
    return false;
}

inline void StaticShared::remember() {
    bool more = false;
    for (size_t word = 0; word < size_ / 4; ++word) {
        const unsigned char* const at = begin_ + 4 * word;
        if (shared_[word] || std::memcmp(at, &before_[4 * word], 4) == 0 || is_own(at)) continue;
        shared_[word] = more = true;
    }
    if (!more) return;
    ranges_.clear();
    for (size_t word = 0; word < size_ / 4; ++word) {
        if (!shared_[word]) continue;
        const unsigned char* const at = begin_ + 4 * word;
        if (ranges_.empty() || ranges_.back().end != at) ranges_.push_back({at, at});
        ranges_.back().end = at + 4;
    }
}

inline void StaticShared::end_block() {
    if (!begin_) return;
    if (++blocks_ <= observed) remember();
    for (const Range& range : ranges_) {
        std::memset(begin_ + (range.begin - begin_), 0xff, range.end - range.begin);
    }
    if (blocks_ < observed) before_.assign(begin_, begin_ + size_);
}

inline void Machine::run(dim3 grid, dim3 block, size_t shared_bytes, const void* code, void (*body)(void*), void* argument) {
    gridDim = grid;
    blockDim = block;
    body_ = body;
    argument_ = argument;
    count_ = block.x * block.y * block.z;
    blocks_ = uint64_t{grid.x} * grid.y * grid.z;
    shared_bytes_ = shared_bytes;
    dynamic_shared = shared_;
    block_ = 0;
    static_shared_.begin(code, this, sizeof *this);
    enter_block();
    for (;;) {
        // Starts threads until one waits, until the end of a warp in a block where some wait, or to the end.
        current_ = take_fiber();
        set_running(next_);
        current_->context.resume();
        if (block_ == blocks_) break;
        if (current_->waited) {
            ++waiting_;
            ++next_;
        }
        if (!current_->waited) free_[free_count_++] = current_;
        if (next_ % warpSize != 0 && next_ < count_) continue;
        finish_warp((next_ - 1) / warpSize * warpSize);
        if (next_ < count_) continue;
        while (waiting_ > 0) pass_barrier();
        static_shared_.end_block();
        if (++block_ == blocks_) return;
        enter_block();
    }
    free_[free_count_++] = current_;
}

inline void Machine::enter_block() {
    const uint64_t row = block_ / gridDim.x;
    blockIdx = {static_cast<uint32_t>(block_ % gridDim.x), static_cast<uint32_t>(row % gridDim.y),
                static_cast<uint32_t>(row / gridDim.y)};
    next_ = 0;
    std::memset(shared_, 0xff, shared_bytes_);
}

// Fills the stack that the next thread of a fibre runs on, so that what the thread does not set it does not find either: on a
// device its registers are no other thread's.
inline __attribute__((noinline)) void forget_the_last_thread() {
    unsigned char stack[1024];
    std::memset(stack, 0xff, sizeof stack);
    __asm__ volatile("" : : "r"(stack) : "memory");
}

// What a fibre does: threads one after another, until one of them has had to wait or there is none left to start.
inline void Machine::fiber_main() {
    Machine& self = machine();
    for (;;) {
        Fiber* const fiber = self.current_;
        do {
            forget_the_last_thread();
            self.body_(self.argument_);
            self.threads_[self.running_].state = State::returned;
        } while (!fiber->waited && self.start_next());
        fiber->context.suspend();
    }
}

inline bool Machine::start_next() {
    ++next_;
    if (waiting_ > 0 && (next_ % warpSize == 0 || next_ == count_)) return false;
    if (next_ == count_) {
        static_shared_.end_block();
        if (++block_ == blocks_) return false;
        enter_block();
    }
    set_running(next_);
    return true;
}

inline void Machine::set_running(uint32_t thread) {
    running_ = thread;
    threads_[thread].state = State::running;
    threadIdx = index_of(thread);
}

inline uint3 Machine::index_of(uint32_t thread) const {
    if (thread < blockDim.x) return {thread, 0, 0};
    const uint32_t row = thread / blockDim.x;
    return {thread % blockDim.x, row % blockDim.y, row / blockDim.y};
}

inline Fiber* Machine::take_fiber() {
    Fiber* fiber;
    if (free_count_ > 0) {
        fiber = free_[--free_count_];
    } else {
        fiber = &fibers_[fibers_created_];
        fiber->create(fiber_main, fibers_created_++);
    }
    fiber->waited = false;
    return fiber;
}

// On a fibre: gives way until the scheduler lets the running thread go on.
inline void Machine::wait(State state, Site site) {
    Thread& thread = threads_[running_];
    thread.state = state;
    thread.site = site;
    thread.index = threadIdx;
    thread.fiber = current_;
    current_->waited = true;
    current_->context.suspend();
}

inline void Machine::resume(uint32_t index) {
    Thread& thread = threads_[index];
    thread.state = State::running;
    running_ = index;
    threadIdx = thread.index;
    current_ = thread.fiber;
    current_->context.resume();
    if (thread.state == State::returned) {
        free_[free_count_++] = thread.fiber;
        --waiting_;
    }
}

// Carries out warp operations until every thread of the warp has returned or is at a barrier. Lanes at different
// operations have diverged; the operation that stands first in the source goes first, so that lanes which left a loop
// early wait for the others behind it.
inline void Machine::finish_warp(uint32_t first) {
    const uint32_t lanes = std::min<uint32_t>(warpSize, count_ - first);
    for (;;) {
        const Site* earliest = nullptr;
        for (uint32_t lane = 0; lane < lanes; ++lane) {
            const Thread& thread = threads_[first + lane];
            if (thread.state != State::in_warp_operation) continue;
            if (!earliest || thread.site.line < earliest->line) earliest = &thread.site;
        }
        if (!earliest) return;
        const Site site = *earliest;
        uint64_t taking_part = 0;
        for (uint32_t lane = 0; lane < lanes; ++lane) {
            const Thread& thread = threads_[first + lane];
            if (thread.state != State::in_warp_operation || !(thread.site == site)) continue;
            taking_part |= uint64_t{1} << lane;
            values_[lane] = thread.value;
        }
        lanes_ = taking_part;
        for (uint32_t lane = 0; lane < lanes; ++lane) {
            if (taking_part >> lane & 1) resume(first + lane);
        }
    }
}

inline void Machine::pass_barrier() {
    for (uint32_t thread = 0; thread < count_; ++thread) {
        if (threads_[thread].state != State::at_barrier || !(threads_[thread].site == threads_[0].site)) {
            report_divergence();
        }
    }
    for (uint32_t first = 0; first < count_; first += warpSize) {
        const uint32_t end = std::min(first + warpSize, count_);
        for (uint32_t thread = first; thread < end; ++thread) resume(thread);
        finish_warp(first);
    }
}

inline void Machine::report_divergence() const {
    const auto at_barrier = [](const Thread& thread) { return thread.state == State::at_barrier; };
    const Thread& here = *std::find_if(threads_, threads_ + count_, at_barrier);
    const auto is_here = [&](const Thread& thread) { return at_barrier(thread) && thread.site == here.site; };
    const Thread& other = *std::find_if_not(threads_, threads_ + count_, is_here);
    const uint3 index = index_of(static_cast<uint32_t>(&other - threads_));
    std::fprintf(stderr,
                 "hip host: divergent __syncthreads() in block (%u, %u, %u): every thread of a block must reach the "
                 "same barrier; %d of %u reached %s:%d (%s), but thread (%u, %u, %u) ",
                 blockIdx.x, blockIdx.y, blockIdx.z,
                 static_cast<int>(std::count_if(threads_, threads_ + count_, is_here)), count_, here.site.file,
                 here.site.line, here.site.function, index.x, index.y, index.z);
    if (at_barrier(other)) {
        std::fprintf(stderr, "waits at %s:%d (%s)\n", other.site.file, other.site.line, other.site.function);
    } else {
        std::fprintf(stderr, "has returned\n");
    }
    std::abort();
}

template <class T>
T exchange(T value, uint32_t from, Site site) {
    static_assert(sizeof(T) <= 8, "warp operations take values of up to 8 bytes");
    uint64_t bits = 0;
    std::memcpy(&bits, &value, sizeof(T));
    Machine& self = machine();
    self.exchange(bits, site);
    bits = self.value_of(from);
    std::memcpy(&value, &bits, sizeof(T));
    return value;
}

inline uint64_t ballot(bool predicate, Site site, uint64_t* lanes) {
    Machine& self = machine();
    self.exchange(predicate, site);
    *lanes = self.lanes();
    uint64_t set = 0;
    for (uint32_t lane = 0; lane < warpSize; ++lane) {
        if (*lanes >> lane & 1) set |= self.value_of(lane) << lane;
    }
    return set;
}

// FNV-1a of a value's bytes.
inline uint64_t hashed(uint64_t hash, const void* value, size_t bytes) {
    for (size_t i = 0; i < bytes; ++i) {
        hash = (hash ^ static_cast<const unsigned char*>(value)[i]) * 0x100000001b3u;
    }
    return hash;
}

// Of a pointer only whether it is null: where a buffer lies is no choice of the launcher's. A structure may have bytes
// that nobody has written.
template <class T>
uint64_t hashed_argument(uint64_t hash, const T& value) {
    if constexpr (std::is_pointer_v<T>) {
        const bool is_null = value == nullptr;
        return hashed(hash, &is_null, sizeof is_null);
    } else if constexpr (std::is_arithmetic_v<T> || std::is_enum_v<T>) {
        return hashed(hash, &value, sizeof value);
    } else {
        (void)value;
        return hash;
    }
}

template <class... Parameters>
uint64_t configuration(dim3 grid, dim3 block, size_t shared_bytes, const std::tuple<Parameters...>& arguments) {
    const uint64_t sizes[] = {grid.x, grid.y, grid.z, block.x, block.y, block.z, shared_bytes};
    uint64_t hash = hashed(0xcbf29ce484222325u, sizes, sizeof sizes);
    std::apply([&](const auto&... each) { ((hash = hashed_argument(hash, each)), ...); }, arguments);
    return hash;
}

}  // namespace hip_host

// Launches as HIP's macro of that name does. An argument is converted to the type of the kernel's parameter.
template <class... Parameters, class... Arguments>
void hipLaunchKernelGGL(void (*kernel)(Parameters...), dim3 grid, dim3 block, size_t shared_bytes, hipStream_t,
                        Arguments&&... arguments) {
    static_assert(sizeof...(Parameters) == sizeof...(Arguments), "the kernel takes another number of arguments");
    const uint64_t threads = uint64_t{block.x} * block.y * block.z;
    const bool grid_fits = grid.x > 0 && grid.x <= 0x7fffffffu && grid.y > 0 && grid.y <= 65536 && grid.z > 0 &&
                           grid.z <= 65536;
    if (!grid_fits || threads == 0 || threads > hip_host::max_threads) {
        hip_host::last_error = hipErrorInvalidConfiguration;
        return;
    }
    if (shared_bytes > hip_host::max_dynamic_shared) {
        hip_host::last_error = hipErrorInvalidValue;
        return;
    }
    struct Call {
        void (*kernel)(Parameters...);
        std::tuple<Parameters...> arguments;
    } call{kernel, {std::forward<Arguments>(arguments)...}};
    if (hip_host_on_configured_launch) {
        hip_host_on_configured_launch(reinterpret_cast<const void*>(kernel),
                                      hip_host::configuration(grid, block, shared_bytes, call.arguments));
    } else if (hip_host_on_launch) {
        hip_host_on_launch(reinterpret_cast<const void*>(kernel));
    }
    const auto body = [](void* call) {
        std::apply(static_cast<Call*>(call)->kernel, static_cast<Call*>(call)->arguments);
    };
    hip_host::machine().run(grid, block, shared_bytes, reinterpret_cast<const void*>(kernel), body, &call);
}

inline hipError_t hipGetLastError() { return std::exchange(hip_host::last_error, hipSuccess); }
inline hipError_t hipPeekAtLastError() { return hip_host::last_error; }
inline const char* hipGetErrorString(hipError_t error) {
    switch (error) {
        case hipSuccess: return "no error";
        case hipErrorInvalidValue: return "invalid argument";
        case hipErrorInvalidConfiguration: return "invalid configuration argument";
    }
    return "unknown error";
}
inline hipError_t hipStreamSynchronize(hipStream_t) { return hipSuccess; }
inline hipError_t hipDeviceSynchronize() { return hipSuccess; }
inline hipError_t hipMemsetAsync(void* destination, int value, size_t bytes, hipStream_t) {
    std::memset(destination, value, bytes);
    return hipSuccess;
}
inline hipError_t hipGetDevice(int* device) {
    *device = 0;
    return hipSuccess;
}
inline hipError_t hipGetDeviceProperties(hipDeviceProp_t* properties, int device) {
    if (device != 0) return hipErrorInvalidValue;
    *properties = {"host", "host", warpSize, hip_host::max_threads, hip_host::max_dynamic_shared};
    return hipSuccess;
}

// Barriers and warp operations

#define HIP_HOST_SITE \
    const char *file = __builtin_FILE(), const char *function = __builtin_FUNCTION(), int line = __builtin_LINE()

inline void __syncthreads(HIP_HOST_SITE) { hip_host::machine().barrier({file, function, line}); }

template <class T>
T __shfl(T value, int source, int width = warpSize, HIP_HOST_SITE) {
    const uint32_t lane = hip_host::machine().lane();
    return hip_host::exchange(value, (lane & -width) | (source & (width - 1)), {file, function, line});
}
template <class T>
T __shfl_xor(T value, int mask, int width = warpSize, HIP_HOST_SITE) {
    const uint32_t lane = hip_host::machine().lane(), source = lane ^ mask;
    return hip_host::exchange(value, source < (lane & -width) + width ? source : lane, {file, function, line});
}
template <class T>
T __shfl_down(T value, unsigned delta, int width = warpSize, HIP_HOST_SITE) {
    const uint32_t lane = hip_host::machine().lane();
    const bool inside = (lane & (width - 1)) + delta < static_cast<uint32_t>(width);
    return hip_host::exchange(value, inside ? lane + delta : lane, {file, function, line});
}
template <class T>
T __shfl_up(T value, unsigned delta, int width = warpSize, HIP_HOST_SITE) {
    const uint32_t lane = hip_host::machine().lane();
    return hip_host::exchange(value, (lane & (width - 1)) >= delta ? lane - delta : lane, {file, function, line});
}
inline unsigned long long __ballot(int predicate, HIP_HOST_SITE) {
    uint64_t lanes;
    return hip_host::ballot(predicate != 0, {file, function, line}, &lanes);
}
inline int __any(int predicate, HIP_HOST_SITE) {
    uint64_t lanes;
    return hip_host::ballot(predicate != 0, {file, function, line}, &lanes) != 0;
}
inline int __all(int predicate, HIP_HOST_SITE) {
    uint64_t lanes;
    return hip_host::ballot(predicate != 0, {file, function, line}, &lanes) == lanes;
}
#undef HIP_HOST_SITE

// Atomics. Other host threads may launch on the same memory.

template <class T>
T atomicCAS(T* address, T expected, T desired) {
    __atomic_compare_exchange(address, &expected, &desired, false, __ATOMIC_RELAXED, __ATOMIC_RELAXED);
    return expected;
}

namespace hip_host {
template <class T, class Combine>
T atomic_update(T* address, Combine combine) {
    T old, desired;
    __atomic_load(address, &old, __ATOMIC_RELAXED);
    do {
        desired = combine(old);
    } while (!__atomic_compare_exchange(address, &old, &desired, true, __ATOMIC_RELAXED, __ATOMIC_RELAXED));
    return old;
}
}  // namespace hip_host

template <class T>
T atomicAdd(T* address, T value) {
    return hip_host::atomic_update(address, [=](T old) { return static_cast<T>(old + value); });
}
template <class T>
T atomicMax(T* address, T value) {
    return hip_host::atomic_update(address, [=](T old) { return old < value ? value : old; });
}
template <class T>
T atomicMin(T* address, T value) {
    return hip_host::atomic_update(address, [=](T old) { return value < old ? value : old; });
}
inline void __threadfence() { __atomic_thread_fence(__ATOMIC_SEQ_CST); }

// Device math that the C++ library does not have under these names

using std::max;
using std::min;

inline float rsqrtf(float x) { return 1.0f / sqrtf(x); }
inline float __expf(float x) { return expf(x); }
inline float __logf(float x) { return logf(x); }
inline float __fdividef(float x, float y) { return x / y; }
inline int __float2int_rn(float x) { return static_cast<int>(rintf(x)); }
inline uint32_t __float_as_uint(float x) {
    uint32_t bits;
    std::memcpy(&bits, &x, sizeof bits);
    return bits;
}
inline float __uint_as_float(uint32_t bits) {
    float x;
    std::memcpy(&x, &bits, sizeof x);
    return x;
}
inline int __float_as_int(float x) { return static_cast<int>(__float_as_uint(x)); }
inline float __int_as_float(int bits) { return __uint_as_float(static_cast<uint32_t>(bits)); }
inline int __popc(unsigned x) { return __builtin_popcount(x); }
inline int __popcll(unsigned long long x) { return __builtin_popcountll(x); }
inline int __clz(int x) { return x == 0 ? 32 : __builtin_clz(static_cast<unsigned>(x)); }
