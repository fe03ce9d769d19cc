// The thread pool. The main thread opens the stages of a schedule one after the other; it and the workers take tasks
// from the open stage. A task is taken by a compare-and-swap on a claim mask, so the main thread never waits for a worker
// to start: if another program occupies the other cores, it runs all tasks itself. It waits only for tasks that a worker
// has begun.
//
// Before a worker has a task, it reads only the words below; and a run returns only when every task has ended. So no
// worker accesses a program that has been freed. Between two runs workers spin for a while, since the next epoch often
// follows at once; then they sleep. Workers are started when they are first needed and never joined; a forked child
// starts with a new pool.
#pragma once
#include <atomic>
#include <new>
#include "program.h"
#include "system.h"

namespace {

constexpr int MAX_TASKS = 32;                  // of a stage: the bits of a claim mask
constexpr int SPINS = 5000;                    // polls, about 100 us, before a waiting thread yields to the operating system
constexpr int IDLE_SPINS = SPINS + 500;        // polls before an idle worker goes to sleep
constexpr size_t STACK_BYTES = size_t(4) << 20;

struct alignas(128) SharedWord {               // alone in two cache lines, since processors fetch pairs of them
    std::atomic<Word> word{0};
};

class ThreadPool {
    SharedWord claims;    // the number of the open stage (from 1) above bit 32; below, a bit for each of its tasks that is free
    SharedWord ended;     // tasks of the open stage that have ended
    SharedWord schedule;  // what is being run
    SharedWord busy;      // whether a main thread is running a schedule with the workers
    SharedWord threads;   // how many may take part, the main thread included
    struct Worker {
        SharedWord awake;
        pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
        pthread_cond_t wanted = PTHREAD_COND_INITIALIZER;
        bool called = false;
        ThreadPool* pool = nullptr;
        int number = 0;
    };
    Worker workers[MAX_TASKS];
    pthread_mutex_t starting = PTHREAD_MUTEX_INITIALIZER;
    std::atomic<int> started{1};  // threads there are, the main thread included; changed under the mutex ``starting``

    static void pause() {
#if defined(__x86_64__)
        __builtin_ia32_pause();
#elif defined(__aarch64__)
        __asm__ volatile("yield");
#endif
    }
    static int wait(int spins) {
        if (spins < SPINS) pause();
        else sched_yield();
        return spins + 1;
    }

    // Take a free task of the open stage: the one with the worker's own number if it is free, since this core's cache has
    // its data; -1: none is free.
    int take(int own) {
        Word mask = claims.word.load(std::memory_order_acquire);
        for (;;) {
            const uint32_t free = uint32_t(mask);
            if (!free) return -1;
            const int task = free >> own & 1 ? own : __builtin_ctz(free);
            if (claims.word.compare_exchange_weak(mask, mask ^ Word(1) << task, std::memory_order_acq_rel, std::memory_order_acquire))
                return task;
        }
    }

    // The stage cannot have changed since the task was taken: it ends only when all its tasks have ended.
    void run_task(const Schedule& s, int task) {
        const Word stage = (claims.word.load(std::memory_order_acquire) >> 32) - 1;
        s.run(s.stages[stage] + task);
        ended.word.fetch_add(1, std::memory_order_acq_rel);
    }

    void look_for_tasks(Worker& self) {
        self.awake.word.store(1, std::memory_order_release);
        for (int idle = 0, spins = 0; idle < IDLE_SPINS;) {
            const int task = self.number < threads.word.load(std::memory_order_acquire) ? take(self.number) : -1;
            if (task >= 0) {
                run_task(Schedule((const Word*)schedule.word.load(std::memory_order_acquire)), task);
                idle = spins = 0;
            } else {
                spins = wait(spins);
                idle = busy.word.load(std::memory_order_acquire) ? 0 : idle + 1;
            }
        }
        self.awake.word.store(0, std::memory_order_release);
    }

    static void* work(void* argument) {
        Worker& self = *(Worker*)argument;
        if (!have_workspace()) return nullptr;  // one worker less
        FloatingPointMode mode;
        for (;;) {
            pthread_mutex_lock(&self.mutex);
            while (!self.called) pthread_cond_wait(&self.wanted, &self.mutex);
            self.called = false;
            pthread_mutex_unlock(&self.mutex);
            self.pool->look_for_tasks(self);
        }
        return nullptr;
    }

    // Workers block all signals, so that the system delivers them to Python's threads. A thread that cannot be created is
    // not an error: fewer take part.
    void start(int count) {
        pthread_attr_t attributes;
        pthread_attr_init(&attributes);
        pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
        pthread_attr_setstacksize(&attributes, STACK_BYTES);
        pthread_mutex_lock(&starting);
        const SignalsBlocked blocked;
        for (int number = started.load(std::memory_order_relaxed); number < count; ++number) {
            Worker& w = workers[number];
            w.pool = this, w.number = number;
            pthread_t thread;
            if (pthread_create(&thread, &attributes, work, &w)) break;
            started.store(number + 1, std::memory_order_release);
        }
        pthread_mutex_unlock(&starting);
        pthread_attr_destroy(&attributes);
    }

public:
    // Whether any worker is awake or, with ``wake``, was woken now. Does not wait for them.
    bool call_workers(int count, bool wake) {
        count = count < MAX_TASKS ? count : MAX_TASKS;
        if (count > started.load(std::memory_order_acquire)) start(count);
        const int there = started.load(std::memory_order_acquire);
        bool any = false;
        for (int i = 1; i < count && i < there; ++i) {
            Worker& w = workers[i];
            if (w.awake.word.load(std::memory_order_acquire)) {
                any = true;
            } else if (wake) {
                pthread_mutex_lock(&w.mutex);
                w.called = true;
                pthread_cond_signal(&w.wanted);
                pthread_mutex_unlock(&w.mutex);
                any = true;
            }
        }
        return any;
    }

    // Run a schedule ``times`` times over, on so many threads if workers come and no other thread is running one.
    void run(const Word* words, Word times, Word count) {
        FloatingPointMode mode;
        const Schedule s(words);
        Word idle = 0;
        const bool parallel = count > 1 && busy.word.compare_exchange_strong(idle, 1, std::memory_order_acq_rel);
        if (parallel) {
            schedule.word.store((Word)words, std::memory_order_release);
            threads.word.store(count, std::memory_order_release);
        }
        for (; times > 0; --times)
            for (Word stage = 0; stage < s.n_stages; ++stage) {
                const Word first = s.stages[stage], n = s.stages[stage + 1] - first;
                if (n == 1 || !parallel) {
                    for (Word task = 0; task < n; ++task) s.run(first + task);
                    continue;
                }
                ended.word.store(0, std::memory_order_release);
                claims.word.store((stage + 1) << 32 | ((Word(1) << n) - 1), std::memory_order_release);
                for (int task; (task = take(0)) >= 0;) run_task(s, task);
                for (int spins = 0; ended.word.load(std::memory_order_acquire) < n;) spins = wait(spins);
            }
        if (parallel) busy.word.store(0, std::memory_order_release);
    }
};

// The pool of this process, made when it is first needed. Threads do not survive a fork, and nothing in the parent's
// pool may be trusted in the child, which therefore gets a pool of its own.
std::atomic<ThreadPool*> current_pool{nullptr};
void forget_pool() { current_pool.store(nullptr); }
__attribute__((constructor)) void forget_pool_in_children() { call_in_children(forget_pool); }

// Null where there is no memory for one.
inline ThreadPool* thread_pool() {
    ThreadPool* pool = current_pool.load();
    if (pool) return pool;
    void* memory = allocate_aligned(alignof(ThreadPool), sizeof(ThreadPool));
    if (!memory) return nullptr;
    ThreadPool* fresh = new (memory) ThreadPool;
    if (current_pool.compare_exchange_strong(pool, fresh)) return fresh;
    free_aligned(memory);  // another thread was first
    return pool;
}

}  // namespace
