/* Stands between a program and libc, and lets the disk fail on request or writes down what reaches it.
 *
 *   LD_PRELOAD=disk_fault.so DISK_SHIM_MATCH=/data/lukhas.db DISK_SHIM_CONTROL=/tmp/control program
 *
 * DISK_SHIM_MATCH    files whose path holds this text are concerned, all others are left alone
 * DISK_SHIM_CONTROL  a file of CONTROL_BYTES that is mapped: a text such as "EIO fsync" or "ENOSPC write truncate",
 *                      which may change at any time; empty means that nothing fails
 * DISK_SHIM_TRACE    a file to which each write, truncate, sync, open and unlink of those files is appended
 * DISK_SHIM_REPORT   a file that gets one line for each call that was failed, and one for a sync that is tried again
 *                      on a handle whose last sync failed
 *
 * A trace's entry: u8 kind, u8 path number, u16 0, u32 process, u32 size, u64 offset, then `size` bytes; kinds: 'P' names a
 * path number of its process (bytes: the path), 'W' write, 'T' truncate (offset: new size), 'S' sync, 'U' unlink. Numbers
 * are little-endian. An entry is there before its call returns, so what depends on the call stands after it.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#define CONTROL_BYTES 256
#define MOST_FILES 4096
#define MOST_PATHS 64

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static const char *match;
static volatile char *control;
static int trace = -1, report = -1, ready;
/* By descriptor: 0 not concerned, else path number + 1; and whether its last sync failed. */
static unsigned char concerned[MOST_FILES], unsynced[MOST_FILES];
static char *paths[MOST_PATHS];
static int path_count;

static ssize_t (*real_write)(int, const void *, size_t);
static ssize_t (*real_pwrite)(int, const void *, size_t, off_t);
static int (*real_fsync)(int), (*real_fdatasync)(int), (*real_ftruncate)(int, off_t), (*real_close)(int);
static int (*real_open)(const char *, int, ...), (*real_unlink)(const char *);
static int (*real_fallocate)(int, int, off_t, off_t), (*real_posix_fallocate)(int, off_t, off_t);

static int start_with(const char *variable, int flags) {
    const char *path = getenv(variable);
    return path ? real_open(path, flags | O_CLOEXEC, 0600) : -1;
}

__attribute__((constructor)) static void start(void) {
    if (ready) return;
    real_write = dlsym(RTLD_NEXT, "write");
    real_pwrite = dlsym(RTLD_NEXT, "pwrite64");
    real_fsync = dlsym(RTLD_NEXT, "fsync");
    real_fdatasync = dlsym(RTLD_NEXT, "fdatasync");
    real_ftruncate = dlsym(RTLD_NEXT, "ftruncate64");
    real_close = dlsym(RTLD_NEXT, "close");
    real_open = dlsym(RTLD_NEXT, "open64");
    real_unlink = dlsym(RTLD_NEXT, "unlink");
    real_fallocate = dlsym(RTLD_NEXT, "fallocate64");
    real_posix_fallocate = dlsym(RTLD_NEXT, "posix_fallocate64");
    match = getenv("DISK_SHIM_MATCH");
    trace = start_with("DISK_SHIM_TRACE", O_WRONLY | O_CREAT | O_APPEND);
    report = start_with("DISK_SHIM_REPORT", O_WRONLY | O_CREAT | O_APPEND);
    int handle = start_with("DISK_SHIM_CONTROL", O_RDWR);
    if (handle >= 0) {
        void *mapped = mmap(NULL, CONTROL_BYTES, PROT_READ, MAP_SHARED, handle, 0);
        if (mapped != MAP_FAILED) control = mapped;
        real_close(handle);
    }
    ready = 1;
}

/* The -shm file is memory that happens to have a name; its content is made anew after a crash. */
static int is_concerned(const char *path) {
    size_t length = strlen(path);
    return match && strstr(path, match) && !(length > 4 && strcmp(path + length - 4, "-shm") == 0);
}

/* An errno where the control names this operation, else 0. */
static int fault(const char *operation) {
    char text[CONTROL_BYTES + 2] = " ";
    if (!control || !control[0]) return 0;
    for (int i = 0; i < CONTROL_BYTES - 2; i++) text[i + 1] = control[i];
    text[CONTROL_BYTES - 1] = 0;
    strcat(text, " ");
    char wanted[32];
    snprintf(wanted, sizeof wanted, " %s ", operation);
    if (!strstr(text, wanted)) return 0;
    return strstr(text, " ENOSPC ") ? ENOSPC : strstr(text, " EROFS ") ? EROFS : EIO;
}

static void say(const char *what, const char *operation, int fd) {
    if (report < 0) return;
    char line[512];
    const char *path = fd >= 0 && concerned[fd] ? paths[concerned[fd] - 1] : "";
    int size = snprintf(line, sizeof line, "%s %s %d %s\n", what, operation, (int)getpid(), path);
    real_write(report, line, size);
}

static void put(char kind, int number, uint64_t offset, const void *data, uint32_t size) {
    if (trace < 0) return;
    struct __attribute__((packed)) { uint8_t kind, number; uint16_t zero; uint32_t process, size; uint64_t offset; } head;
    head.kind = kind, head.number = number, head.zero = 0, head.size = size, head.offset = offset;
    head.process = getpid();
    struct iovec parts[2] = {{&head, sizeof head}, {(void *)data, size}};
    if (writev(trace, parts, size ? 2 : 1) < 0) abort();
}

static int number_of(const char *path) {
    for (int i = 0; i < path_count; i++)
        if (strcmp(paths[i], path) == 0) return i;
    if (path_count == MOST_PATHS) abort();
    paths[path_count] = strdup(path);
    put('P', path_count, 0, path, strlen(path));
    return path_count++;
}

static int follows(int fd) { return fd >= 0 && fd < MOST_FILES && concerned[fd]; }

static int open_any(const char *path, int flags, mode_t mode) {
    start();
    int is = is_concerned(path);
    int failure = is ? fault("open") : 0;
    if (failure) {
        say("failed", "open", -1);
        errno = failure;
        return -1;
    }
    int fd = real_open(path, flags, mode);
    if (fd >= 0 && fd < MOST_FILES) {
        pthread_mutex_lock(&lock);
        concerned[fd] = is ? number_of(path) + 1 : 0;
        unsynced[fd] = 0;
        if (is && flags & O_TRUNC) put('T', concerned[fd] - 1, 0, NULL, 0);
        pthread_mutex_unlock(&lock);
    }
    return fd;
}

#define OPEN(name)                                          \
    int name(const char *path, int flags, ...) {            \
        mode_t mode = 0;                                    \
        if (flags & (O_CREAT | O_TMPFILE)) {                \
            va_list rest;                                   \
            va_start(rest, flags);                          \
            mode = va_arg(rest, mode_t);                    \
            va_end(rest);                                   \
        }                                                   \
        return open_any(path, flags, mode);                 \
    }
OPEN(open)
OPEN(open64)
int __open_2(const char *path, int flags) { return open_any(path, flags, 0); }
int __open64_2(const char *path, int flags) { return open_any(path, flags, 0); }

int close(int fd) {
    start();
    if (fd >= 0 && fd < MOST_FILES) concerned[fd] = 0;
    return real_close(fd);
}

ssize_t pwrite64(int fd, const void *data, size_t size, off_t offset) {
    start();
    if (!follows(fd)) return real_pwrite(fd, data, size, offset);
    int failure = fault("write");
    if (failure) {
        say("failed", "write", fd);
        errno = failure;
        return -1;
    }
    /* Traced in the order in which it reached the file. */
    pthread_mutex_lock(&lock);
    ssize_t done = real_pwrite(fd, data, size, offset);
    if (done > 0) put('W', concerned[fd] - 1, offset, data, done);
    pthread_mutex_unlock(&lock);
    return done;
}
ssize_t pwrite(int fd, const void *data, size_t size, off_t offset) { return pwrite64(fd, data, size, offset); }

ssize_t write(int fd, const void *data, size_t size) {
    start();
    if (!follows(fd)) return real_write(fd, data, size);
    int failure = fault("write");
    if (failure) {
        say("failed", "write", fd);
        errno = failure;
        return -1;
    }
    pthread_mutex_lock(&lock);
    ssize_t done = real_write(fd, data, size);
    if (done > 0) put('W', concerned[fd] - 1, lseek(fd, 0, SEEK_CUR) - done, data, done);
    pthread_mutex_unlock(&lock);
    return done;
}

static int sync_any(int fd, int (*real)(int)) {
    if (!follows(fd)) return real(fd);
    if (unsynced[fd]) say("again", "fsync", fd);
    int failure = fault("fsync");
    if (failure) {
        unsynced[fd] = 1;
        say("failed", "fsync", fd);
        errno = failure;
        return -1;
    }
    pthread_mutex_lock(&lock);
    int result = real(fd);
    if (result == 0) put('S', concerned[fd] - 1, 0, NULL, 0);
    pthread_mutex_unlock(&lock);
    unsynced[fd] = 0;
    return result;
}
int fsync(int fd) {
    start();
    return sync_any(fd, real_fsync);
}
int fdatasync(int fd) {
    start();
    return sync_any(fd, real_fdatasync);
}

int ftruncate64(int fd, off_t size) {
    start();
    if (!follows(fd)) return real_ftruncate(fd, size);
    int failure = fault("truncate");
    if (failure) {
        say("failed", "truncate", fd);
        errno = failure;
        return -1;
    }
    pthread_mutex_lock(&lock);
    int result = real_ftruncate(fd, size);
    if (result == 0) put('T', concerned[fd] - 1, size, NULL, 0);
    pthread_mutex_unlock(&lock);
    return result;
}
int ftruncate(int fd, off_t size) { return ftruncate64(fd, size); }

int posix_fallocate64(int fd, off_t offset, off_t size) {
    start();
    int failure = follows(fd) ? fault("write") : 0;
    return failure ? failure : real_posix_fallocate(fd, offset, size);
}
int posix_fallocate(int fd, off_t offset, off_t size) { return posix_fallocate64(fd, offset, size); }

int unlink(const char *path) {
    start();
    int is = is_concerned(path);
    pthread_mutex_lock(&lock);
    int result = real_unlink(path);
    if (is && result == 0) put('U', number_of(path), 0, NULL, 0);
    pthread_mutex_unlock(&lock);
    return result;
}
