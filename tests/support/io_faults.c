// A library for LD_PRELOAD that makes chosen system calls fail: see io_faults.py, which compiles it and has the protocol.
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

enum { MAX_RULES = 64, MAX_TEXT = 8192 };
enum { FAIL, KILL, SHORT, TERM };

struct rule {
    char call[16], part[256];
    int action, error, forever;
    long at, seen;
};

static struct rule rules[MAX_RULES];
static int n_rules, log_file = -1, ready;
static __thread int inside;  // our own calls are not counted

#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

static const struct { const char* name; int error; } ERRORS[] = {
    {"ENOSPC", ENOSPC}, {"EIO", EIO},     {"EROFS", EROFS},   {"EACCES", EACCES}, {"EDQUOT", EDQUOT},
    {"ENOENT", ENOENT}, {"EINTR", EINTR}, {"EFBIG", EFBIG},   {"EPERM", EPERM},   {"EMFILE", EMFILE},
    {"ENOLCK", ENOLCK}, {"ENOTSUP", ENOTSUP},
};

// CALL:N[+]:ACTION[:PART], separated by semicolons.
static void read_rules(void) {
    ready = 1;
    const char* given = getenv("IO_FAULTS");
    const char* log = getenv("IO_FAULTS_LOG");
    if (log) log_file = REAL(open)(log, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    char text[MAX_TEXT], *save = NULL;
    strncpy(text, given ? given : "", sizeof text - 1), text[sizeof text - 1] = 0;
    for (char* word = strtok_r(text, ";", &save); word; word = strtok_r(NULL, ";", &save)) {
        struct rule* r = &rules[n_rules];
        char count[24] = "", action[16] = "";
        if (n_rules == MAX_RULES || sscanf(word, "%15[^:]:%23[^:]:%15[^:]:%255[^\n]", r->call, count, action, r->part) < 3) {
            fprintf(stderr, "io_faults: cannot read %s\n", word);
            abort();
        }
        r->at = atol(count), r->forever = strchr(count, '+') != NULL;
        r->action = !strcmp(action, "KILL") ? KILL : !strcmp(action, "SHORT") ? SHORT : !strcmp(action, "TERM") ? TERM : FAIL;
        for (size_t i = 0; i < sizeof ERRORS / sizeof *ERRORS; ++i)
            if (!strcmp(action, ERRORS[i].name)) r->error = ERRORS[i].error;
        if (r->action == FAIL && !r->error) {
            fprintf(stderr, "io_faults: unknown action %s\n", action);
            abort();
        }
        ++n_rules;
    }
}

// For a forked child whose environment has other rules than its parent's.
void io_faults_reset(void) {
    if (log_file >= 0) close(log_file);
    memset(rules, 0, sizeof rules);
    n_rules = ready = 0, log_file = -1;
}

// 0: go on; -1: the call fails, errno is set; 1: only half is to be written.
static int fault(const char* call, const char* path) {
    if (inside) return 0;
    inside = 1;
    if (!ready) read_rules();
    if (log_file >= 0) {
        char line[MAX_TEXT];
        int n = snprintf(line, sizeof line, "%s %s\n", call, path);
        if (n > 0) (void)!REAL(write)(log_file, line, (size_t)(n < (int)sizeof line ? n : (int)sizeof line - 1));
    }
    int found = 0;
    for (int i = 0; i < n_rules && !found; ++i) {
        struct rule* r = &rules[i];
        if (strcmp(r->call, call) || (*r->part && !strstr(path, r->part))) continue;
        const long seen = __sync_add_and_fetch(&r->seen, 1);
        if (seen != r->at && !(r->forever && seen > r->at)) continue;
        if (r->action == KILL) raise(SIGKILL);
        if (r->action == TERM) raise(SIGTERM);
        if (r->action == SHORT) found = 1;
        if (r->action == FAIL) found = -1, errno = r->error;
    }
    inside = 0;
    return found;
}

static const char* path_of(int fd, char* buffer, size_t size) {
    char link[64];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    const ssize_t n = readlink(link, buffer, size - 1);
    buffer[n < 0 ? 0 : n] = 0;
    return buffer;
}

static int writing(int flags) { return (flags & (O_WRONLY | O_RDWR | O_CREAT)) != 0; }

#define OPEN(name)                                                        \
    int name(const char* path, int flags, ...) {                          \
        va_list rest;                                                     \
        va_start(rest, flags);                                            \
        const mode_t mode = (flags & O_CREAT) ? va_arg(rest, mode_t) : 0; \
        va_end(rest);                                                     \
        if (writing(flags) && fault("open", path) < 0) return -1;         \
        return REAL(name)(path, flags, mode);                             \
    }
OPEN(open)
OPEN(open64)

#define OPENAT(name)                                                      \
    int name(int folder, const char* path, int flags, ...) {              \
        va_list rest;                                                     \
        va_start(rest, flags);                                            \
        const mode_t mode = (flags & O_CREAT) ? va_arg(rest, mode_t) : 0; \
        va_end(rest);                                                     \
        if (writing(flags) && fault("open", path) < 0) return -1;         \
        return REAL(name)(folder, path, flags, mode);                     \
    }
OPENAT(openat)
OPENAT(openat64)

ssize_t write(int fd, const void* data, size_t n) {
    char path[MAX_TEXT];
    const int found = fault("write", path_of(fd, path, sizeof path));
    return found < 0 ? -1 : REAL(write)(fd, data, found > 0 && n > 1 ? n / 2 : n);
}

#define PWRITE(name, offset_type)                                                                \
    ssize_t name(int fd, const void* data, size_t n, offset_type at) {                           \
        char path[MAX_TEXT];                                                                     \
        const int found = fault("write", path_of(fd, path, sizeof path));                        \
        return found < 0 ? -1 : REAL(name)(fd, data, found > 0 && n > 1 ? n / 2 : n, at);        \
    }
PWRITE(pwrite, off_t)
PWRITE(pwrite64, off64_t)

ssize_t writev(int fd, const struct iovec* parts, int n) {
    char path[MAX_TEXT];
    return fault("write", path_of(fd, path, sizeof path)) < 0 ? -1 : REAL(writev)(fd, parts, n);
}

#define OF_FILE(name, call)                                                                         \
    int name(int fd) {                                                                              \
        char path[MAX_TEXT];                                                                        \
        return fault(call, path_of(fd, path, sizeof path)) < 0 ? -1 : REAL(name)(fd);               \
    }
OF_FILE(fsync, "fsync")
OF_FILE(fdatasync, "fsync")

int flock(int fd, int operation) {
    char path[MAX_TEXT];
    return fault("flock", path_of(fd, path, sizeof path)) < 0 ? -1 : REAL(flock)(fd, operation);
}

// The path is that of the place, not of what is put there.
int rename(const char* from, const char* to) { return fault("rename", to) < 0 ? -1 : REAL(rename)(from, to); }
int renameat(int a, const char* from, int b, const char* to) {
    return fault("rename", to) < 0 ? -1 : REAL(renameat)(a, from, b, to);
}
int link(const char* from, const char* to) { return fault("link", to) < 0 ? -1 : REAL(link)(from, to); }
int unlink(const char* path) { return fault("unlink", path) < 0 ? -1 : REAL(unlink)(path); }
int mkdir(const char* path, mode_t mode) { return fault("mkdir", path) < 0 ? -1 : REAL(mkdir)(path, mode); }
int chmod(const char* path, mode_t mode) { return fault("chmod", path) < 0 ? -1 : REAL(chmod)(path, mode); }
int ftruncate(int fd, off_t size) {
    char path[MAX_TEXT];
    return fault("truncate", path_of(fd, path, sizeof path)) < 0 ? -1 : REAL(ftruncate)(fd, size);
}
int ftruncate64(int fd, off64_t size) {
    char path[MAX_TEXT];
    return fault("truncate", path_of(fd, path, sizeof path)) < 0 ? -1 : REAL(ftruncate64)(fd, size);
}
