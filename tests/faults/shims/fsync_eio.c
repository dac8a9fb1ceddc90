/* Makes fsync and fdatasync fail with EIO while a file is there, of files below a path alone.

   FAULTS_EIO_WHILE: the file; FAULTS_EIO_BELOW: a part of the path, empty for any;
   FAULTS_EIO_COUNT: a file that gets a byte for each failure. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

static int fails(int fd) {
    const char *file = getenv("FAULTS_EIO_WHILE");
    const char *below = getenv("FAULTS_EIO_BELOW");
    const char *count = getenv("FAULTS_EIO_COUNT");
    char link[64], path[PATH_MAX];
    if (file == NULL || access(file, F_OK) != 0) return 0;
    if (below != NULL && *below) {
        snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
        ssize_t size = readlink(link, path, sizeof path - 1);
        if (size < 0) return 0;
        path[size] = 0;
        if (strstr(path, below) == NULL) return 0;
    }
    int out = count == NULL ? -1 : open(count, O_WRONLY | O_CREAT | O_APPEND, 0666);
    if (out >= 0) {
        if (write(out, "x", 1) != 1) { /* only a count */ }
        close(out);
    }
    errno = EIO;
    return 1;
}

int fsync(int fd) { return fails(fd) ? -1 : (int)syscall(SYS_fsync, fd); }
int fdatasync(int fd) { return fails(fd) ? -1 : (int)syscall(SYS_fdatasync, fd); }
