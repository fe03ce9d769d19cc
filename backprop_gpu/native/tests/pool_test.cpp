// The thread pool with real kernels in it, for ThreadSanitizer: two main threads run many schedules on few and many threads,
// workers fall asleep and are woken, and children that are forked in between run schedules with pools of their own. Every
// run must have the bits of a serial one.
//
// pool_test [rounds of each main thread [instruction set]]
#include <pthread.h>
#include <sys/wait.h>
#include <unistd.h>
#include "calls.h"

namespace {

const char* instruction_set;
constexpr Word UNITS = 64, INPUTS = 21, EXAMPLES = 37, PARAMETERS = UNITS * INPUTS;
constexpr Word MOST_TASKS = 8, STAGES = 4, CALLS = 4 * MOST_TASKS + 2;

// A step of one layer: A <- tanh(W X + b);  dW, db;  |dW|, in one task;  W <- W - rate clipped dW.
class Step {
    float W[PARAMETERS], X[INPUTS * EXAMPLES], A[UNITS * EXAMPLES], dW[PARAMETERS], b[UNITS], db[UNITS];
    float parameter = 0, rate = 0x1p-9f, most = 1, norm = 0, factor = 0, constants[5] = {};
    double sums[1], scales[1];
    Row rows[CALLS];
    Word schedule[1 + STAGES + 1 + 3 * MOST_TASKS + 2 + 2 * CALLS], n_calls = 0;
    Word* calls;

    void call(const char* name, const Row& arguments) {
        rows[n_calls] = arguments;
        calls[2 * n_calls] = kernel_of(instruction_set, name), calls[2 * n_calls + 1] = (Word)rows[n_calls].words;
        ++n_calls;
    }

public:
    void reset(uint64_t seed) {
        Random random(seed);
        for (float& w : W) w = float(random.number());
        for (float& x : X) x = float(random.number());
        for (float& x : b) x = float(random.number());
    }

    // In so many tasks a stage; the third stage has one.
    void make(Word tasks) {
        n_calls = 0;
        const Word n_tasks = 3 * tasks + 1;
        Word *stage = schedule + 1, *task = stage + STAGES + 1;
        calls = task + n_tasks + 1;
        schedule[0] = STAGES;
        *stage++ = 0, *task++ = 0;
        for (Word i = 0; i < tasks; ++i) {
            const Word first = UNITS * i / tasks, n = UNITS * (i + 1) / tasks - first;
            call("dense_tanh_float32", row(W + first * INPUTS, 0, X, b + first, A + first * EXAMPLES, n, INPUTS, EXAMPLES,
                                           &parameter, nullptr, EXAMPLES));
            *task++ = n_calls;
        }
        *stage++ = tasks;
        for (Word i = 0; i < tasks; ++i) {  // reads what its own task of the stage before did not write
            const Word first = UNITS * (tasks - 1 - i) / tasks, n = UNITS * (tasks - i) / tasks - first;
            call("dense_vjp_params_float32", row(A + first * EXAMPLES, 0, X, dW + first * INPUTS, n, INPUTS, EXAMPLES, nullptr, 0, INPUTS));
            call("row_sums_float32", row(A + first * EXAMPLES, db + first, n, EXAMPLES, nullptr, 0));
            *task++ = n_calls;
        }
        *stage++ = 2 * tasks;
        call("squares_float32", row(dW, sums, scales, 0, 1, PARAMETERS));
        call("global_norm_float32", row(sums, scales, 1, &most, &norm, &factor));
        *task++ = n_calls;
        *stage++ = 2 * tasks + 1;
        for (Word i = 0; i < tasks; ++i) {
            const Word first = PARAMETERS * i / tasks, n = PARAMETERS * (i + 1) / tasks - first;
            call("update_sgd_float32", row(W + first, dW + first, nullptr, nullptr, nullptr, &rate, constants, &factor, n));
            *task++ = n_calls;
        }
        *stage++ = n_tasks;
    }

    uint64_t hash_after(Word times, Word threads) {
        if (backprop_run_schedule(schedule, times, threads)) abort();
        return fnv1a(&factor, sizeof factor, fnv1a(db, sizeof db, fnv1a(A, sizeof A, fnv1a(W, sizeof W))));
    }
};

// Nonzero: a run had other bits.
int run_rounds(uint64_t seed, Word rounds) {
    Random random(seed);
    Step* step = new Step;
    for (Word i = 0; i < rounds; ++i) {
        const Word tasks = 1 + random.below(MOST_TASKS), times = 1 + random.below(20), threads = 1 + random.below(MOST_TASKS);
        const uint64_t data = random.bits();
        step->make(tasks);
        step->reset(data);
        const uint64_t serial = step->hash_after(times, 1);
        step->reset(data);
        if (random.below(8) == 0) usleep(20000);  // workers have gone to sleep
        backprop_call_workers(threads, int(random.below(2)));
        if (random.below(8) == 0) usleep(200);
        if (step->hash_after(times, threads) != serial) {
            printf("%d tasks, %d times, on %d threads: other bits\n", int(tasks), int(times), int(threads));
            return 1;
        }
    }
    delete step;
    return 0;
}

struct Main {
    uint64_t seed;
    Word rounds;
    bool forks;
    int failed = 0;
};

void* main_thread(void* argument) {
    Main& self = *(Main*)argument;
    const Word pieces = self.forks ? 4 : 1;
    for (Word piece = 0; piece < pieces; ++piece) {
        self.failed |= run_rounds(self.seed + uint64_t(piece), self.rounds / pieces);
        if (!self.forks) continue;
        const pid_t child = fork();
        if (child == 0) _exit(run_rounds(self.seed + 100, 20));
        int status = 0;
        waitpid(child, &status, 0);
        if (status) printf("a forked child ended with status %d\n", status), self.failed = 1;
    }
    return nullptr;
}

}  // namespace

int main(int count, char** arguments) {
    const Word rounds = count > 1 ? atoi(arguments[1]) : 200;
#ifdef __x86_64__
    instruction_set = count > 2 ? arguments[2] : "avx2";
#else
    instruction_set = count > 2 ? arguments[2] : "neon";
#endif
    Main mains[2] = {{1, rounds, true}, {50, rounds, false}};
    pthread_t other;
    if (pthread_create(&other, nullptr, main_thread, &mains[1])) abort();
    main_thread(&mains[0]);
    pthread_join(other, nullptr);
    if (mains[0].failed || mains[1].failed) return 1;
    printf("%d schedules by two main threads and in 4 forked children: the bits of serial runs\n", int(2 * rounds + 80));
    return 0;
}
