// The threads that operators share, and memory of each that stays.

#pragma once

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <cstdlib>
#include <mutex>
#include <thread>
#include <vector>

#include <sched.h>

namespace {

using Index = int64_t;

// Keeps its threads for the life of the process. They spin for some microseconds, as the next operator comes soon, then
// sleep. OpenMP keeps a team for every thread that calls it, and MindSpore calls from several.
class Pool {
  public:
    Pool() {
        const char *asked = std::getenv("MOVIEGEN_THREADS");
        threads = asked ? std::max(1, std::atoi(asked)) : available();
        for (int i = 1; i < threads; i++) std::thread([this, i] { work(i); }).detach();
    }

    // Calls job(argument, i) in this thread, with i = 0, and in those others that are awake before this one is done: a job
    // must be able to do all alone. Where another caller has the others, it does.
    void run(void (*job)(void *, int), void *argument) {
        std::unique_lock<std::mutex> lock(busy, std::try_to_lock);
        if (threads == 1 || !lock) return job(argument, 0);
        this->job = job;
        this->argument = argument;
        state.store((++generation << 32) | OPEN, std::memory_order_release);
        state.notify_all();
        job(argument, 0);
        state.fetch_and(~OPEN, std::memory_order_acq_rel);
        for (int spins = 0; uint32_t(state.load(std::memory_order_acquire)); spins++)
            spins < SPINS ? pause() : void(sched_yield());
    }

    int threads;

  private:
    static constexpr int SPINS = 4000;

    static int available() {
        cpu_set_t cores;
        return sched_getaffinity(0, sizeof cores, &cores) ? 1 : CPU_COUNT(&cores);
    }

    static void pause() {
#if defined(__x86_64__)
        __builtin_ia32_pause();
#elif defined(__aarch64__)
        asm volatile("yield");
#endif
    }

    void work(int index) {
        for (uint64_t seen = 0;;) {
            uint64_t now = state.load(std::memory_order_acquire);
            for (int spins = 0; now >> 32 == seen >> 32 || !(now & OPEN); now = state.load(std::memory_order_acquire))
                spins++ < SPINS ? pause() : state.wait(now, std::memory_order_acquire);
            if (!state.compare_exchange_weak(now, now + 1, std::memory_order_acq_rel)) continue;
            job(argument, index);
            state.fetch_sub(1, std::memory_order_release);
            seen = now;
        }
    }

    static constexpr uint64_t OPEN = 1 << 16;  // beside the number of threads that are at the job; above: its number
    std::mutex busy;
    std::atomic<uint64_t> state{0};
    uint64_t generation = 0;
    void (*job)(void *, int);
    void *argument;
};

Pool &pool() {
    static Pool *const one = new Pool;  // never destroyed: its threads may outlive what the process tears down
    return *one;
}

// f(begin, end) over [0, count), in pieces of `grain`. Each thread has a share of neighbours, the same in every operator,
// so that rows stay in the cache of the core that made them; who is ready helps the others.
template <class F>
void parallel(Index count, Index grain, F f) {
    const Index pieces = (count + grain - 1) / grain;
    const int threads = pool().threads;
    auto piece = [&](Index i) { f(i * grain, std::min((i + 1) * grain, count)); };
    if (pieces <= 1 || threads == 1) {
        for (Index i = 0; i < pieces; i++) piece(i);
        return;
    }
    struct alignas(64) Share {
        std::atomic<Index> next;
        Index end;
    };
    std::vector<Share> shares(threads);
    for (int i = 0; i < threads; i++) {
        shares[i].next.store(pieces * i / threads, std::memory_order_relaxed);
        shares[i].end = pieces * (i + 1) / threads;
    }
    auto take = [&](int thread) {
        for (int turn = 0; turn < threads; turn++) {
            Share &share = shares[(thread + turn) % threads];
            for (Index i; (i = share.next.fetch_add(1, std::memory_order_relaxed)) < share.end;) piece(i);
        }
    };
    pool().run([](void *argument, int thread) { (*static_cast<decltype(take) *>(argument))(thread); }, &take);
}

// Memory of this thread's own that stays for the next call.
template <int SLOT>
float *scratch(Index floats) {
    thread_local struct Buffer {
        float *data = nullptr;
        Index size = 0;
        ~Buffer() { std::free(data); }
    } buffer;
    if (buffer.size < floats) {
        std::free(buffer.data);
        buffer.size = (floats + 1023) / 1024 * 1024;
        buffer.data = static_cast<float *>(std::aligned_alloc(64, buffer.size * sizeof(float)));
        if (!buffer.data) std::abort();
    }
    return buffer.data;
}

}  // namespace
