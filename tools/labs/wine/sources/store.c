/* XenStore's wire protocol (docs/misc/xenstore.txt of Xen) over TCP: what a guest's kernel does over the shared page.

   At the other end a relay passes the bytes on to the socket of the guest's domain. When that socket goes, and comes
   back as another domain's after a migration, requests and watches are sent again, as XENBUS does. */

#include <winsock2.h>
#include <stdio.h>

#include "store.h"

/* Fixed: the machine's network is its own, and has nothing in it but this. As in relay.py. */
#define PORT 4321

#define RETRY_MILLISECONDS 50
#define ANSWER_MILLISECONDS 30000
#define MAX_WATCHES 128

struct header {
    UINT32 type, request, transaction, length;
};

struct watch {
    unsigned long number;
    HANDLE event;
    char path[MAX_PAYLOAD + 1];
};

static CRITICAL_SECTION guard;
static SOCKET connection = INVALID_SOCKET;
static HANDLE answered;
static UINT32 last_request;
static unsigned long last_watch;
static struct watch *watches[MAX_WATCHES];

/* The request that waits for its answer, if there is one. */
static struct header asked;
static const char *asked_payload;
static struct answer *wanted;

static BOOL send_all(SOCKET to, const void *data, unsigned long length)
{
    const char *next = data;

    while (length) {
        int sent = send(to, next, (int)length, 0);
        if (sent <= 0)
            return FALSE;
        next += sent;
        length -= (unsigned long)sent;
    }
    return TRUE;
}

static BOOL receive_all(SOCKET from, void *data, unsigned long length)
{
    char *next = data;

    while (length) {
        int received = recv(from, next, (int)length, 0);
        if (received <= 0)
            return FALSE;
        next += received;
        length -= (unsigned long)received;
    }
    return TRUE;
}

static BOOL send_packet(SOCKET to, const struct header *header, const char *payload)
{
    /* In one piece, or Nagle's algorithm and late acknowledgements make each request take 40 ms. */
    char packet[sizeof(*header) + MAX_PAYLOAD];

    memcpy(packet, header, sizeof(*header));
    memcpy(packet + sizeof(*header), payload, header->length);
    return send_all(to, packet, sizeof(*header) + header->length);
}

static unsigned long watch_payload(const struct watch *watch, char payload[MAX_PAYLOAD])
{
    int length = snprintf(payload, MAX_PAYLOAD, "%s%c%lu", watch->path, 0, watch->number);

    return length > 0 && length < MAX_PAYLOAD ? (unsigned long)length + 1 : 0;
}

static void fire(const char *payload, unsigned long length)
{
    unsigned long number = 0, index;
    const char *token = payload + strlen(payload) + 1;

    if (token < payload + length)
        number = strtoul(token, NULL, 10);
    EnterCriticalSection(&guard);
    for (index = 0; index < MAX_WATCHES; index++)
        if (watches[index] && watches[index]->number == number)
            SetEvent(watches[index]->event);
    LeaveCriticalSection(&guard);
}

static void take(const struct header *header, const char *payload)
{
    EnterCriticalSection(&guard);
    if (wanted && header->request == asked.request) {
        if (header->type == XS_ERROR) {
            snprintf(wanted->error, sizeof(wanted->error), "%.31s", payload);
        } else {
            wanted->length = header->length;
            memcpy(wanted->payload, payload, header->length + 1);
        }
        wanted = NULL;
        SetEvent(answered);
    }
    LeaveCriticalSection(&guard);
}

/* Everything that the last connection took with it. */
static void send_again(SOCKET to)
{
    char payload[MAX_PAYLOAD];
    unsigned long index;

    EnterCriticalSection(&guard);
    for (index = 0; index < MAX_WATCHES; index++) {
        if (watches[index]) {
            struct header header = {XS_WATCH, 0, 0, watch_payload(watches[index], payload)};
            send_packet(to, &header, payload);
        }
    }
    if (wanted)
        send_packet(to, &asked, asked_payload);
    connection = to;
    LeaveCriticalSection(&guard);
}

static void serve(SOCKET from)
{
    struct header header;
    char payload[MAX_PAYLOAD + 1];

    while (receive_all(from, &header, sizeof(header)) && header.length <= MAX_PAYLOAD
           && receive_all(from, payload, header.length)) {
        payload[header.length] = 0;
        if (header.type == XS_WATCH_EVENT)
            fire(payload, header.length);
        else
            take(&header, payload);
    }
}

static DWORD WINAPI stay_connected(void *unused)
{
    struct sockaddr_in relay = {.sin_family = AF_INET, .sin_port = htons(PORT)};

    (void)unused;
    relay.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    for (;;) {
        SOCKET opened = socket(AF_INET, SOCK_STREAM, 0);
        if (connect(opened, (struct sockaddr *)&relay, sizeof(relay)) == 0) {
            send_again(opened);
            serve(opened);
        }
        EnterCriticalSection(&guard);
        connection = INVALID_SOCKET;
        LeaveCriticalSection(&guard);
        closesocket(opened);
        Sleep(RETRY_MILLISECONDS);
    }
    return 0;
}

void store_start(void)
{
    WSADATA data;

    InitializeCriticalSection(&guard);
    answered = CreateEventW(NULL, FALSE, FALSE, NULL);
    WSAStartup(MAKEWORD(2, 2), &data);
    CloseHandle(CreateThread(NULL, 0, stay_connected, NULL, 0, NULL));
}

void store_ask(unsigned long type, const char *payload, unsigned long length, struct answer *answer)
{
    memset(answer, 0, sizeof(*answer));
    if (length > MAX_PAYLOAD) {
        strcpy(answer->error, "E2BIG");
        return;
    }
    EnterCriticalSection(&guard);
    ResetEvent(answered);
    asked = (struct header){type, ++last_request, 0, length};
    asked_payload = payload;
    wanted = answer;
    if (connection != INVALID_SOCKET)
        send_packet(connection, &asked, payload);
    LeaveCriticalSection(&guard);
    if (WaitForSingleObject(answered, ANSWER_MILLISECONDS) != WAIT_OBJECT_0) {
        EnterCriticalSection(&guard);
        if (wanted) {
            wanted = NULL;
            strcpy(answer->error, "lost");
        }
        LeaveCriticalSection(&guard);
    }
}

unsigned long store_watch(const char *path, void *event, struct answer *answer)
{
    char payload[MAX_PAYLOAD];
    unsigned long index, length;
    struct watch *watch = calloc(1, sizeof(*watch));

    for (index = 0; index < MAX_WATCHES && watches[index]; index++)
        ;
    memset(answer, 0, sizeof(*answer));
    watch->number = ++last_watch;
    watch->event = event;
    strncpy(watch->path, path, MAX_PAYLOAD);
    length = watch_payload(watch, payload);
    if (index == MAX_WATCHES || !length) {
        strcpy(answer->error, "E2BIG");
    } else {
        /* Before it is asked for: the daemon may send its first event ahead of the answer. */
        EnterCriticalSection(&guard);
        watches[index] = watch;
        LeaveCriticalSection(&guard);
        store_ask(XS_WATCH, payload, length, answer);
        if (!answer->error[0])
            return watch->number;
        EnterCriticalSection(&guard);
        watches[index] = NULL;
        LeaveCriticalSection(&guard);
    }
    CloseHandle(event);
    free(watch);
    return 0;
}

void store_unwatch(unsigned long number)
{
    char payload[MAX_PAYLOAD];
    struct answer answer;
    struct watch *watch = NULL;
    unsigned long index;

    EnterCriticalSection(&guard);
    for (index = 0; index < MAX_WATCHES; index++) {
        if (watches[index] && watches[index]->number == number) {
            watch = watches[index];
            watches[index] = NULL;
        }
    }
    LeaveCriticalSection(&guard);
    if (!watch)
        return;
    store_ask(XS_UNWATCH, payload, watch_payload(watch, payload), &answer);
    CloseHandle(watch->event);
    free(watch);
}
