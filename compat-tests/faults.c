/* A library to preload: lets the disk of a broker fail as the file named by TEST_FAULT says, while that file exists.
 *
 *   eio-sync      fdatasync and fsync fail with EIO
 *   eio-write     writes to the data folder fail with EIO
 *   enospc        writes to the data folder, and reservations of room, fail with ENOSPC
 *   erofs         as after a remount read-only: writes, syncs, new names fail with EROFS
 *   slow N        each sync takes N ms longer
 *   hang          a sync returns only when the file is gone
 *
 * Only files in the folder TEST_FAULT_FOLDER are affected. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#define REAL(name) ({ static __typeof__(name) *real; if (!real) real = dlsym(RTLD_NEXT, #name); real; })

static int fault(char *mode, size_t size) {
    const char *path = getenv("TEST_FAULT");
    int file = path ? REAL(open)(path, O_RDONLY | O_CLOEXEC) : -1;
    if (file < 0) return 0;
    ssize_t length = read(file, mode, size - 1);
    close(file);
    mode[length > 0 ? length : 0] = 0;
    return length > 0;
}

static int is_inside(const char *path) {
    const char *folder = getenv("TEST_FAULT_FOLDER");
    return folder && strncmp(path, folder, strlen(folder)) == 0;
}

static int is_data(int file) {
    char link[64], path[PATH_MAX];
    snprintf(link, sizeof link, "/proc/self/fd/%d", file);
    ssize_t length = readlink(link, path, sizeof path - 1);
    if (length <= 0) return 0;
    path[length] = 0;
    return is_inside(path);
}

/* The error of a write to a file, or 0. */
static int write_error(int file) {
    char mode[64];
    if (!fault(mode, sizeof mode) || !is_data(file)) return 0;
    if (!strncmp(mode, "eio-write", 9)) return EIO;
    if (!strncmp(mode, "enospc", 6)) return ENOSPC;
    if (!strncmp(mode, "erofs", 5)) return EROFS;
    return 0;
}

static int sync_error(int file) {
    char mode[64];
    if (!fault(mode, sizeof mode) || !is_data(file)) return 0;
    if (!strncmp(mode, "eio-sync", 8)) return EIO;
    if (!strncmp(mode, "erofs", 5)) return EROFS;
    if (!strncmp(mode, "slow ", 5)) usleep(atoi(mode + 5) * 1000);
    while (!strncmp(mode, "hang", 4)) {
        usleep(10000);
        if (!fault(mode, sizeof mode)) break;
    }
    return 0;
}

static int name_error(const char *path) {
    char mode[64];
    return fault(mode, sizeof mode) && is_inside(path) && !strncmp(mode, "erofs", 5) ? EROFS : 0;
}

#define FAIL(error) do { int e = (error); if (e) { errno = e; return -1; } } while (0)

ssize_t write(int file, const void *bytes, size_t count) {
    FAIL(write_error(file));
    return REAL(write)(file, bytes, count);
}
ssize_t pwrite64(int file, const void *bytes, size_t count, off64_t at) {
    FAIL(write_error(file));
    return REAL(pwrite64)(file, bytes, count, at);
}
ssize_t writev(int file, const struct iovec *parts, int count) {
    FAIL(write_error(file));
    return REAL(writev)(file, parts, count);
}
ssize_t pwritev64(int file, const struct iovec *parts, int count, off64_t at) {
    FAIL(write_error(file));
    return REAL(pwritev64)(file, parts, count, at);
}
int fallocate64(int file, int mode, off64_t from, off64_t size) {
    FAIL(write_error(file));
    return REAL(fallocate64)(file, mode, from, size);
}
int ftruncate64(int file, off64_t size) {
    FAIL(write_error(file));
    return REAL(ftruncate64)(file, size);
}
int fdatasync(int file) {
    FAIL(sync_error(file));
    return REAL(fdatasync)(file);
}
int fsync(int file) {
    FAIL(sync_error(file));
    return REAL(fsync)(file);
}
int open64(const char *path, int flags, ...) {
    va_list more;
    va_start(more, flags);
    mode_t mode = flags & (O_CREAT | O_TMPFILE) ? va_arg(more, mode_t) : 0;
    va_end(more);
    if (flags & (O_WRONLY | O_RDWR | O_CREAT)) FAIL(name_error(path));
    return REAL(open64)(path, flags, mode);
}
int rename(const char *from, const char *to) {
    FAIL(name_error(to));
    return REAL(rename)(from, to);
}
int unlink(const char *path) {
    FAIL(name_error(path));
    return REAL(unlink)(path);
}
