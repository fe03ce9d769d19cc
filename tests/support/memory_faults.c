// A library for LD_PRELOAD in which one large allocation of one's choice fails: see memory_faults.py.
#include <errno.h>
#include <stddef.h>

static long at, seen;
static size_t least;

void* __libc_malloc(size_t);
void* __libc_calloc(size_t, size_t);
void* __libc_realloc(void*, size_t);
void* __libc_memalign(size_t, size_t);

// From now on the n-th allocation of so many bytes at least fails, once; 0: none.
void memory_faults_arm(long n, size_t bytes) { __atomic_store_n(&seen, 0, 5), least = bytes, at = n; }

// Allocations of that size since then.
long memory_faults_seen(void) { return __atomic_load_n(&seen, 5); }

static int fails(size_t n) {
    if (!least || n < least) return 0;
    if (__atomic_add_fetch(&seen, 1, 5) != at) return 0;
    errno = ENOMEM;
    return 1;
}

void* malloc(size_t n) { return fails(n) ? NULL : __libc_malloc(n); }
void* calloc(size_t n, size_t size) { return fails(n * size) ? NULL : __libc_calloc(n, size); }
void* realloc(void* p, size_t n) { return fails(n) ? NULL : __libc_realloc(p, n); }
void* memalign(size_t alignment, size_t n) { return fails(n) ? NULL : __libc_memalign(alignment, n); }
void* aligned_alloc(size_t alignment, size_t n) {
    return fails(n) ? NULL : __libc_memalign(alignment, n);
}
int posix_memalign(void** p, size_t alignment, size_t n) {
    void* found = fails(n) ? NULL : __libc_memalign(alignment, n);
    if (!found) return ENOMEM;
    *p = found;
    return 0;
}
