/*
 * Stands in for the hypervisor below Debian's unmodified xenstored and oxenstored (LD_PRELOAD).
 *
 * Everything that the hypervisor would keep lies in one directory, $XENWARD_LAB:
 *
 *   ring.N      the page that domain N shares with the daemon (struct xenstore_domain_interface); ring.0 is dom0's
 *   wake.N      a FIFO: each byte is an event for domain N
 *   events      a FIFO: each uint32_t is an event for the daemon, the number of the port that fired
 *   dead.N      exists when domain N has been destroyed; every other domain lives
 *   xsd_port    the port of dom0's own ring, as text
 *
 * Files rather than sockets, because a FIFO holds 16384 events and a queue of datagrams holds ten, and an event that is
 * lost would leave a ring standing still. Prototypes and structs come from Debian's libxen-dev, so that the compiler
 * checks what this file promises.
 */

#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <unistd.h>

#include <xenctrl.h>
#include <xenevtchn.h>
#include <xengnttab.h>

#define PAGE 4096
#define PATH_SIZE 4096
#define VIRQ_PORT 1            /* "a domain ended" */
#define FIRST_DOMAIN_PORT 1000 /* domain N's ring is this port + N */

/* Compiled into oxenstored; xenstored has the variable XENSTORED_RUNDIR for it, which serves both here. */
static const char oxenstored_directory[] = "/var/run/xenstored";

static const char *lab(void)
{
    return getenv("XENWARD_LAB");
}

static const char *in_lab(char path[PATH_SIZE], const char *kind, unsigned int domid)
{
    snprintf(path, PATH_SIZE, "%s/%s.%u", lab(), kind, domid);
    return path;
}

/* Where a path that the daemon knows by heart really is. */
static const char *placed(char path[PATH_SIZE], const char *wanted)
{
    size_t length = sizeof(oxenstored_directory) - 1;

    if (strcmp(wanted, "/proc/xen/xsd_kva") == 0)
        return in_lab(path, "ring", 0);
    if (strcmp(wanted, "/proc/xen/xsd_port") == 0) {
        snprintf(path, PATH_SIZE, "%s/xsd_port", lab());
        return path;
    }
    if (strncmp(wanted, oxenstored_directory, length) == 0 && (wanted[length] == '/' || wanted[length] == '\0')) {
        snprintf(path, PATH_SIZE, "%s%s", getenv("XENSTORED_RUNDIR"), wanted + length);
        return path;
    }
    return wanted;
}

/* The daemon must not outlive whoever started it: that process holds the other end of our standard input. */
static void *end_with_parent(void *unused)
{
    char byte;

    (void)unused;
    while (read(STDIN_FILENO, &byte, 1) > 0 || errno == EINTR)
        ;
    _exit(0);
}

__attribute__((constructor)) static void start(void)
{
    sigset_t all, before;
    pthread_t thread;

    /* The daemon's signals are the daemon's. */
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    if (!lab() || !getenv("XENSTORED_RUNDIR") || pthread_create(&thread, NULL, end_with_parent, NULL) != 0)
        abort();
    pthread_sigmask(SIG_SETMASK, &before, NULL);
}

/* Files */

static int open_placed(const char *wanted, int flags, va_list rest)
{
    char path[PATH_SIZE];
    mode_t mode = flags & O_CREAT ? va_arg(rest, mode_t) : 0;

    return openat(AT_FDCWD, placed(path, wanted), flags, mode);
}

int open(const char *path, int flags, ...)
{
    va_list rest;
    int descriptor;

    va_start(rest, flags);
    descriptor = open_placed(path, flags, rest);
    va_end(rest);
    return descriptor;
}

int open64(const char *path, int flags, ...) __attribute__((alias("open")));

int unlink(const char *wanted)
{
    char path[PATH_SIZE];

    return unlinkat(AT_FDCWD, placed(path, wanted), 0);
}

int mkdir(const char *wanted, mode_t mode)
{
    char path[PATH_SIZE];

    return mkdirat(AT_FDCWD, placed(path, wanted), mode);
}

int bind(int descriptor, const struct sockaddr *address, socklen_t length)
{
    struct sockaddr_un moved = {.sun_family = AF_UNIX};
    char wanted[sizeof(moved.sun_path) + 1] = "", path[PATH_SIZE];
    const char *found;

    if (address->sa_family == AF_UNIX && length > offsetof(struct sockaddr_un, sun_path)) {
        memcpy(wanted, ((const struct sockaddr_un *)address)->sun_path, length - offsetof(struct sockaddr_un, sun_path));
        found = placed(path, wanted);
        if (found != wanted) {
            if (strlen(found) >= sizeof(moved.sun_path)) {
                errno = ENAMETOOLONG;
                return -1;
            }
            strcpy(moved.sun_path, found);
            address = (const struct sockaddr *)&moved;
            length = sizeof(moved);
        }
    }
    return syscall(SYS_bind, descriptor, address, length);
}

/* oxenstored raises its limit of open files and ends when it may not; a lab needs no more than it has. */
int setrlimit(__rlimit_resource_t resource, const struct rlimit *limit)
{
    (void)resource, (void)limit;
    return 0;
}

int setrlimit64(__rlimit_resource_t resource, const struct rlimit64 *limit)
{
    (void)resource, (void)limit;
    return 0;
}

/* Domains */

static char handle;

static int lives(uint32_t domid)
{
    char path[PATH_SIZE];

    return access(in_lab(path, "dead", domid), F_OK) != 0;
}

xc_interface *xc_interface_open(xentoollog_logger *logger, xentoollog_logger *dombuild_logger, unsigned flags)
{
    (void)logger, (void)dombuild_logger, (void)flags;
    return (xc_interface *)&handle;
}

int xc_interface_close(xc_interface *xch)
{
    (void)xch;
    return 0;
}

int xc_domain_getinfo(xc_interface *xch, uint32_t first, unsigned int count, xc_dominfo_t *info)
{
    (void)xch;
    if (count == 0 || !lives(first))
        return 0;
    memset(info, 0, sizeof(*info));
    info->domid = first;
    return 1;
}

int xc_domain_getinfolist(xc_interface *xch, uint32_t first, unsigned int count, xc_domaininfo_t *info)
{
    (void)xch;
    if (count == 0 || !lives(first))
        return 0;
    memset(info, 0, sizeof(*info));
    info->domain = first;
    return 1;
}

/* Shared pages: xenstored maps a grant, oxenstored a frame */

static void *map_ring(uint32_t domid, int protection)
{
    char path[PATH_SIZE];
    int descriptor = open(in_lab(path, "ring", domid), O_RDWR | O_CLOEXEC);
    void *page;

    if (descriptor < 0)
        return NULL;
    page = mmap(NULL, PAGE, protection, MAP_SHARED, descriptor, 0);
    close(descriptor);
    return page == MAP_FAILED ? NULL : page;
}

void *xc_map_foreign_range(xc_interface *xch, uint32_t domid, int size, int protection, unsigned long frame)
{
    (void)xch, (void)frame;
    return size == PAGE ? map_ring(domid, protection) : NULL;
}

xengnttab_handle *xengnttab_open(xentoollog_logger *logger, unsigned flags)
{
    (void)logger, (void)flags;
    return (xengnttab_handle *)&handle;
}

int xengnttab_close(xengnttab_handle *xgt)
{
    (void)xgt;
    return 0;
}

int xengnttab_set_max_grants(xengnttab_handle *xgt, uint32_t count)
{
    (void)xgt, (void)count;
    return 0;
}

void *xengnttab_map_grant_ref(xengnttab_handle *xgt, uint32_t domid, uint32_t reference, int protection)
{
    (void)xgt, (void)reference;
    return map_ring(domid, protection);
}

int xengnttab_unmap(xengnttab_handle *xgt, void *start, uint32_t count)
{
    (void)xgt;
    return munmap(start, count * (size_t)PAGE);
}

/* Event channels */

static int events = -1;
static int wake[1 << 16]; /* of each domid, its FIFO; 0 while there is none */

xenevtchn_handle *xenevtchn_open(xentoollog_logger *logger, unsigned int flags)
{
    char path[PATH_SIZE];

    (void)logger, (void)flags;
    snprintf(path, sizeof(path), "%s/events", lab());
    events = open(path, O_RDWR | O_CLOEXEC | O_NONBLOCK);
    return events < 0 ? NULL : (xenevtchn_handle *)&handle;
}

xenevtchn_handle *xenevtchn_fdopen(xentoollog_logger *logger, int fd, unsigned int flags)
{
    (void)logger, (void)flags;
    events = fd;
    return (xenevtchn_handle *)&handle;
}

int xenevtchn_close(xenevtchn_handle *xce)
{
    (void)xce;
    return close(events);
}

int xenevtchn_fd(xenevtchn_handle *xce)
{
    (void)xce;
    return events;
}

xenevtchn_port_or_error_t xenevtchn_bind_virq(xenevtchn_handle *xce, unsigned int virq)
{
    (void)xce, (void)virq;
    return VIRQ_PORT;
}

xenevtchn_port_or_error_t xenevtchn_bind_interdomain(xenevtchn_handle *xce, uint32_t domid, evtchn_port_t remote)
{
    char path[PATH_SIZE];

    (void)xce, (void)remote;
    /* Opened for both directions, so that a domain whose end is closed is no SIGPIPE. */
    int descriptor = open(in_lab(path, "wake", domid), O_RDWR | O_CLOEXEC | O_NONBLOCK);
    if (descriptor < 0)
        return -1;
    wake[domid & 0xffff] = descriptor;
    return FIRST_DOMAIN_PORT + domid;
}

int xenevtchn_unbind(xenevtchn_handle *xce, evtchn_port_t port)
{
    int *descriptor = &wake[(port - FIRST_DOMAIN_PORT) & 0xffff];

    (void)xce;
    if (port >= FIRST_DOMAIN_PORT && *descriptor) {
        close(*descriptor);
        *descriptor = 0;
    }
    return 0;
}

int xenevtchn_notify(xenevtchn_handle *xce, evtchn_port_t port)
{
    (void)xce;
    /* A FIFO that is full already says all that this byte would. */
    if (port >= FIRST_DOMAIN_PORT && wake[(port - FIRST_DOMAIN_PORT) & 0xffff])
        return write(wake[(port - FIRST_DOMAIN_PORT) & 0xffff], "", 1) < 0 && errno != EAGAIN ? -1 : 0;
    return 0;
}

xenevtchn_port_or_error_t xenevtchn_pending(xenevtchn_handle *xce)
{
    uint32_t port;

    (void)xce;
    return read(events, &port, sizeof(port)) == sizeof(port) ? (xenevtchn_port_or_error_t)port : -1;
}

int xenevtchn_unmask(xenevtchn_handle *xce, evtchn_port_t port)
{
    (void)xce, (void)port;
    return 0;
}
