/* Loaded before libc: counts what a run asks of the file system and makes one of it go wrong.

   struct plan lies in a file that every process of a run maps (FAULTS_PLAN), so that the workers count on. A site
   is one call that changes the file system (class 'c'), opens a file for reading ('o') or reads one ('r'); each
   class is counted apart. Calls on what is no regular file or directory (terminal, pipes) are no sites. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

enum { LOG_FD = 900 };
enum { KILL = -1, KILL_ALL = -2, TORN = -3, SHORT = -4, INTERRUPT = -5, TERMINATE = -6 };

struct plan {
  int count[256]; /* by class */
  int class;
  int at;   /* the how-manieth call of the class */
  int what; /* 0: only log; > 0: an errno; < 0: see above */
  int root; /* the process that signals go to */
};

static struct plan *plan;
static int counting;

__attribute__((constructor)) static void begin(void) {
  const char *path = getenv("FAULTS_PLAN");
  int fd = path ? open(path, O_RDWR | O_CLOEXEC) : -1;
  if (fd < 0) return;
  void *at = mmap(NULL, sizeof *plan, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  if (at != MAP_FAILED) plan = at;
  close(fd);
  counting = getenv("FAULTS_NOW") != NULL;
  if (counting) plan->root = getpid();
}

/* The forked process of a run calls this; what was forked before does not count. */
void faults_now(void) {
  counting = plan != NULL;
  if (counting) plan->root = getpid();
}

/* 0: go on; 1: fail, errno is set; 2: do half of it, then die; 3: do half of it. */
static int site(char class, const char *call, const char *path, int fd) {
  if (!counting || !plan) return 0;
  char name[4096] = "";
  if (!path) path = "";
  if (fd >= 0) {
    struct stat status;
    if (syscall(SYS_fstat, fd, &status) != 0 || !(S_ISREG(status.st_mode) || S_ISDIR(status.st_mode))) return 0;
    char link[64];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = syscall(SYS_readlink, link, name, sizeof name - 1);
    name[length > 0 ? length : 0] = 0;
    path = name;
  }
  /* Python's own modules, and what the kernel makes up. */
  if (class != 'c' && (strstr(path, "/dev/") == path || strstr(path, "/proc/") == path || strstr(path, "/sys/") == path))
    return 0;
  if (class == 'c' && strstr(path, "/dev/") == path) return 0;
  int now = __atomic_add_fetch(&plan->count[(unsigned char)class], 1, __ATOMIC_SEQ_CST);
  char line[4400];
  int length = snprintf(line, sizeof line, "%c %d %s %s\n", class, now, call, path);
  syscall(SYS_write, LOG_FD, line, length);
  if (plan->what == 0 || plan->class != class || plan->at != now) return 0;
  switch (plan->what) {
  case KILL: syscall(SYS_kill, getpid(), SIGKILL); break;
  case KILL_ALL: syscall(SYS_kill, 0, SIGKILL); break;
  case INTERRUPT: syscall(SYS_kill, plan->root, SIGINT); return 0;
  case TERMINATE: syscall(SYS_kill, plan->root, SIGTERM); return 0;
  case TORN: return 2;
  case SHORT: return 3;
  default: errno = plan->what; return 1;
  }
  for (;;) pause();
}

#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))
#define TRY(class, path, fd)                     \
  int fault = site(class, __func__, path, fd);   \
  if (fault == 1) return -1
#define DIE_IF_TORN                                    \
  if (fault == 2) {                                    \
    syscall(SYS_kill, 0, SIGKILL);                     \
    for (;;) pause();                                  \
  }

static char kind(int flags) { return flags & (O_WRONLY | O_RDWR | O_CREAT | O_TRUNC) ? 'c' : 'o'; }

#define OPEN(name, ...)                                             \
  int mode = 0;                                                     \
  if (flags & (O_CREAT | O_TMPFILE)) {                              \
    va_list rest;                                                   \
    va_start(rest, flags);                                          \
    mode = va_arg(rest, int);                                       \
    va_end(rest);                                                   \
  }                                                                 \
  TRY(kind(flags), path, -1);                                       \
  return REAL(name)(__VA_ARGS__, flags, mode)

int open(const char *path, int flags, ...) { OPEN(open, path); }
int open64(const char *path, int flags, ...) { OPEN(open64, path); }
int openat(int dir, const char *path, int flags, ...) { OPEN(openat, dir, path); }
int openat64(int dir, const char *path, int flags, ...) { OPEN(openat64, dir, path); }

#define HALF(size) (fault >= 2 && (size) > 1 ? (size) / 2 : (size))

ssize_t write(int fd, const void *data, size_t size) {
  TRY('c', NULL, fd);
  ssize_t done = REAL(write)(fd, data, HALF(size));
  DIE_IF_TORN
  return done;
}
ssize_t writev(int fd, const struct iovec *parts, int count) {
  TRY('c', NULL, fd);
  return REAL(writev)(fd, parts, count);
}
#define PWRITE(name)                                                     \
  ssize_t name(int fd, const void *data, size_t size, off_t at) {        \
    TRY('c', NULL, fd);                                                  \
    ssize_t done = REAL(name)(fd, data, HALF(size), at);                 \
    DIE_IF_TORN                                                          \
    return done;                                                         \
  }
PWRITE(pwrite)
PWRITE(pwrite64)
ssize_t copy_file_range(int in, off64_t *from, int out, off64_t *to, size_t size, unsigned flags) {
  TRY('c', NULL, out);
  ssize_t done = REAL(copy_file_range)(in, from, out, to, HALF(size), flags);
  DIE_IF_TORN
  return done;
}
ssize_t sendfile(int out, int in, off_t *from, size_t size) {
  TRY('c', NULL, out);
  ssize_t done = REAL(sendfile)(out, in, from, HALF(size));
  DIE_IF_TORN
  return done;
}

#define ON_PATH(name, parameters, path, ...) \
  int name parameters {                      \
    TRY('c', path, -1);                      \
    return REAL(name)(__VA_ARGS__);          \
  }
#define ON_FD(name, parameters, fd, ...) \
  int name parameters {                  \
    TRY('c', NULL, fd);                  \
    return REAL(name)(__VA_ARGS__);      \
  }

ON_PATH(creat, (const char *path, mode_t mode), path, path, mode)
ON_PATH(rename, (const char *old, const char *new), new, old, new)
ON_PATH(renameat, (int a, const char *old, int b, const char *new), new, a, old, b, new)
ON_PATH(renameat2, (int a, const char *old, int b, const char *new, unsigned f), new, a, old, b, new, f)
ON_PATH(unlink, (const char *path), path, path)
ON_PATH(unlinkat, (int dir, const char *path, int f), path, dir, path, f)
ON_PATH(rmdir, (const char *path), path, path)
ON_PATH(mkdir, (const char *path, mode_t mode), path, path, mode)
ON_PATH(mkdirat, (int dir, const char *path, mode_t mode), path, dir, path, mode)
ON_PATH(symlink, (const char *to, const char *path), path, to, path)
ON_PATH(symlinkat, (const char *to, int dir, const char *path), path, to, dir, path)
ON_PATH(link, (const char *old, const char *new), new, old, new)
ON_PATH(linkat, (int a, const char *old, int b, const char *new, int f), new, a, old, b, new, f)
ON_PATH(chmod, (const char *path, mode_t mode), path, path, mode)
ON_PATH(fchmodat, (int dir, const char *path, mode_t mode, int f), path, dir, path, mode, f)
ON_PATH(chown, (const char *path, uid_t u, gid_t g), path, path, u, g)
ON_PATH(lchown, (const char *path, uid_t u, gid_t g), path, path, u, g)
ON_PATH(fchownat, (int dir, const char *path, uid_t u, gid_t g, int f), path, dir, path, u, g, f)
ON_PATH(truncate, (const char *path, off_t size), path, path, size)
ON_PATH(truncate64, (const char *path, off64_t size), path, path, size)
ON_PATH(setxattr, (const char *path, const char *n, const void *v, size_t s, int f), path, path, n, v, s, f)
ON_PATH(utimensat, (int dir, const char *path, const struct timespec t[2], int f), path, dir, path, t, f)
ON_FD(fchmod, (int fd, mode_t mode), fd, fd, mode)
ON_FD(fchown, (int fd, uid_t u, gid_t g), fd, fd, u, g)
ON_FD(ftruncate, (int fd, off_t size), fd, fd, size)
ON_FD(ftruncate64, (int fd, off64_t size), fd, fd, size)
ON_FD(fallocate, (int fd, int mode, off_t from, off_t size), fd, fd, mode, from, size)
ON_FD(fsetxattr, (int fd, const char *n, const void *v, size_t s, int f), fd, fd, n, v, s, f)
ON_FD(fremovexattr, (int fd, const char *n), fd, fd, n)
ON_FD(futimens, (int fd, const struct timespec t[2]), fd, fd, t)
ON_FD(fsync, (int fd), fd, fd)
ON_FD(fdatasync, (int fd), fd, fd)
ON_FD(flock, (int fd, int how), fd, fd, how)

ssize_t read(int fd, void *data, size_t size) {
  TRY('r', NULL, fd);
  return REAL(read)(fd, data, size);
}
#define PREAD(name)                                          \
  ssize_t name(int fd, void *data, size_t size, off_t at) {  \
    TRY('r', NULL, fd);                                      \
    return REAL(name)(fd, data, size, at);                   \
  }
PREAD(pread)
PREAD(pread64)
#define PREADV(name)                                                   \
  ssize_t name(int fd, const struct iovec *parts, int n, off_t at) {   \
    TRY('r', NULL, fd);                                                \
    return REAL(name)(fd, parts, n, at);                               \
  }
PREADV(preadv)
PREADV(preadv64)
