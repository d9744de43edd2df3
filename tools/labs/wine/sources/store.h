/* The guest's connection to XenStore, as the fake XENIFACE driver uses it. */

#ifndef XENWARD_STORE_H
#define XENWARD_STORE_H

#define XS_DIRECTORY 1
#define XS_READ 2
#define XS_WATCH 4
#define XS_UNWATCH 5
#define XS_WRITE 11
#define XS_RM 13
#define XS_SET_PERMS 14
#define XS_WATCH_EVENT 15
#define XS_ERROR 16

#define MAX_PAYLOAD 4096

/* An answer. `error` is empty, or the daemon's name of an error, "ENOENT"; "lost" when there was no answer in time. */
struct answer {
    unsigned long length;
    char payload[MAX_PAYLOAD + 1];
    char error[32];
};

/* Connect, now and whenever the connection was lost, and stay so. Once. */
void store_start(void);

/* Ask for one thing and wait for the answer. One call at a time. */
void store_ask(unsigned long type, const char *payload, unsigned long length, struct answer *answer);

/* Set `event`, a handle of this process, whenever `path` changes. The watch's number, or 0 and an error in `answer`.
   The handle is closed by store_unwatch(), or here when it fails. */
unsigned long store_watch(const char *path, void *event, struct answer *answer);

void store_unwatch(unsigned long number);

#endif
