/* A stand-in for XENIFACE, the Windows driver through which programs of a Xen guest reach XenStore.

   It has the real one's device interface, its orders for XenStore, their sizes, their checks and their errors, as
   version 9.1 of win-xeniface has them (include/xeniface_ioctls.h, src/xeniface/ioctl_store.c). It is made for Wine,
   where a driver is a library in a process of its own: it uses what no driver could on Windows. */

#include <initguid.h>
#include <ntifs.h>
#include <stdio.h>

#include "process.h"
#include "store.h"

DEFINE_GUID(INTERFACE_STORE, 0xb2cfb085, 0xaa5e, 0x47e1, 0x8b, 0xf7, 0x97, 0x93, 0xf3, 0x15, 0x45, 0x65);

#define ORDER(number) CTL_CODE(FILE_DEVICE_UNKNOWN, number, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define ORDER_READ ORDER(0x800)
#define ORDER_WRITE ORDER(0x801)
#define ORDER_DIRECTORY ORDER(0x802)
#define ORDER_REMOVE ORDER(0x803)
#define ORDER_SET_PERMISSIONS ORDER(0x804)
#define ORDER_ADD_WATCH ORDER(0x805)
#define ORDER_REMOVE_WATCH ORDER(0x806)

#define MAX_PATH_LENGTH 3072
#define MAX_PERMISSIONS 255
#define MAX_OPEN_WATCHES 128

struct permission {
    USHORT domain;
    int mask;
};

struct permissions_in {
    const char *path;
    ULONG path_length;
    ULONG count;
    struct permission permissions[1];
};

struct watch_in {
    const char *path;
    ULONG path_length;
    HANDLE event;
};

/* Which file a watch belongs to: it ends with the file. The context that programs see is `number`, times 16. */
static struct {
    FILE_OBJECT *file;
    unsigned long number;
} open_watches[MAX_OPEN_WATCHES];

static struct answer answer;
static UNICODE_STRING interface_name;

static NTSTATUS status_of(const char *error)
{
    static const struct {
        const char *name;
        NTSTATUS status;
    } known[] = {
        {"", STATUS_SUCCESS},
        {"EINVAL", STATUS_INVALID_PARAMETER},
        {"EACCES", STATUS_ACCESS_DENIED},
        {"EEXIST", STATUS_OBJECT_NAME_COLLISION},
        {"ENOENT", STATUS_OBJECT_NAME_NOT_FOUND},
        {"ENOMEM", STATUS_NO_MEMORY},
        {"ENOSPC", STATUS_INSUFFICIENT_RESOURCES},
        {"EROFS", STATUS_MEDIA_WRITE_PROTECTED},
        {"EBUSY", STATUS_RETRY},
        {"EAGAIN", STATUS_RETRY},
    };
    unsigned index;

    for (index = 0; index < sizeof(known) / sizeof(*known); index++)
        if (!strcmp(error, known[index].name))
            return known[index].status;
    return STATUS_UNSUCCESSFUL;
}

/* Whether there is a string of printable characters, with its end, in the first `length` bytes. */
static BOOLEAN is_valid(const char *text, ULONG length)
{
    for (; length; text++, length--) {
        if (!*text)
            return TRUE;
        if (*text < 0x20 || *text > 0x7e)
            return FALSE;
    }
    return FALSE;
}

static NTSTATUS give(char *buffer, ULONG out, const char *content, ULONG length, ULONG_PTR *information)
{
    if (out && out < length)
        return STATUS_INVALID_PARAMETER;
    *information = length;
    if (!out)
        return STATUS_BUFFER_OVERFLOW;
    memcpy(buffer, content, length);
    return STATUS_SUCCESS;
}

static NTSTATUS read(char *buffer, ULONG in, ULONG out, ULONG_PTR *information)
{
    if (!in)
        return STATUS_INVALID_BUFFER_SIZE;
    if (!is_valid(buffer, in))
        return STATUS_INVALID_PARAMETER;
    store_ask(XS_READ, buffer, (ULONG)strlen(buffer) + 1, &answer);
    if (answer.error[0])
        return status_of(answer.error);
    return give(buffer, out, answer.payload, (ULONG)strlen(answer.payload) + 1, information);
}

static NTSTATUS write(char *buffer, ULONG in, ULONG out)
{
    ULONG path;

    if (!in || out)
        return STATUS_INVALID_BUFFER_SIZE;
    if (!is_valid(buffer, in))
        return STATUS_INVALID_PARAMETER;
    path = (ULONG)strlen(buffer) + 1;
    if (!is_valid(buffer + path, in - path))
        return STATUS_INVALID_PARAMETER;
    store_ask(XS_WRITE, buffer, path + (ULONG)strlen(buffer + path), &answer);
    return status_of(answer.error);
}

static NTSTATUS directory(char *buffer, ULONG in, ULONG out, ULONG_PTR *information)
{
    if (!in)
        return STATUS_INVALID_BUFFER_SIZE;
    if (!is_valid(buffer, in))
        return STATUS_INVALID_PARAMETER;
    store_ask(XS_DIRECTORY, buffer, (ULONG)strlen(buffer) + 1, &answer);
    if (answer.error[0])
        return status_of(answer.error);
    if (!answer.length)
        return STATUS_OBJECT_PATH_NOT_FOUND;
    /* The names have their ends, and the byte behind them is 0. */
    return give(buffer, out, answer.payload, answer.length + 1, information);
}

static NTSTATUS remove_node(char *buffer, ULONG in, ULONG out)
{
    if (!in || out)
        return STATUS_INVALID_BUFFER_SIZE;
    if (!is_valid(buffer, in))
        return STATUS_INVALID_PARAMETER;
    store_ask(XS_RM, buffer, (ULONG)strlen(buffer) + 1, &answer);
    return status_of(answer.error);
}

/* What the program that asks has at that address of its own. */
static NTSTATUS captured(const char *address, ULONG length, char path[MAX_PATH_LENGTH])
{
    if (!length || length > MAX_PATH_LENGTH)
        return STATUS_INVALID_PARAMETER;
    if (!process_read(HandleToULong(PsGetCurrentProcessId()), address, path, length))
        return STATUS_ACCESS_VIOLATION;
    path[length - 1] = 0;
    return STATUS_SUCCESS;
}

static NTSTATUS set_permissions(const struct permissions_in *asked, ULONG in, ULONG out)
{
    static const char letters[] = {'n', 'r', 'w', 'b'};
    char path[MAX_PATH_LENGTH], payload[MAX_PAYLOAD];
    ULONG length, index;
    NTSTATUS status;

    if (in < sizeof(*asked) || out)
        return STATUS_INVALID_BUFFER_SIZE;
    if (asked->count > MAX_PERMISSIONS)
        return STATUS_INVALID_PARAMETER;
    if (in != FIELD_OFFSET(struct permissions_in, permissions) + asked->count * sizeof(struct permission))
        return STATUS_INVALID_BUFFER_SIZE;
    status = captured(asked->path, asked->path_length, path);
    if (status)
        return status;
    length = (ULONG)strlen(path) + 1;
    memcpy(payload, path, length);
    for (index = 0; index < asked->count && length + 8 < sizeof(payload); index++) {
        const struct permission *one = &asked->permissions[index];
        if (one->mask & ~3)
            return STATUS_INVALID_PARAMETER;
        length += (ULONG)sprintf(payload + length, "%c%u", letters[one->mask], one->domain) + 1;
    }
    store_ask(XS_SET_PERMS, payload, length, &answer);
    return status_of(answer.error);
}

static NTSTATUS add_watch(void *buffer, ULONG in, ULONG out, FILE_OBJECT *file, ULONG_PTR *information)
{
    const struct watch_in asked = *(struct watch_in *)buffer;
    char path[MAX_PATH_LENGTH];
    unsigned long number;
    ULONG place;
    void *event;
    NTSTATUS status;

    if (in != sizeof(asked) || out != sizeof(ULONG_PTR))
        return STATUS_INVALID_BUFFER_SIZE;
    status = captured(asked.path, asked.path_length, path);
    if (status)
        return status;
    for (place = 0; place < MAX_OPEN_WATCHES && open_watches[place].file; place++)
        ;
    if (place == MAX_OPEN_WATCHES)
        return STATUS_NO_MEMORY;
    event = process_event(HandleToULong(PsGetCurrentProcessId()), asked.event);
    if (!event)
        return STATUS_INVALID_HANDLE;
    number = store_watch(path, event, &answer);
    if (!number)
        return status_of(answer.error);
    open_watches[place].file = file;
    open_watches[place].number = number;
    *(ULONG_PTR *)buffer = (ULONG_PTR)number * 16;
    *information = sizeof(ULONG_PTR);
    return STATUS_SUCCESS;
}

static NTSTATUS remove_watch(const ULONG_PTR *context, ULONG in, ULONG out, FILE_OBJECT *file)
{
    ULONG place;

    if (in != sizeof(*context) || out)
        return STATUS_INVALID_BUFFER_SIZE;
    for (place = 0; place < MAX_OPEN_WATCHES; place++) {
        if (open_watches[place].file == file && (ULONG_PTR)open_watches[place].number * 16 == *context) {
            open_watches[place].file = NULL;
            store_unwatch(open_watches[place].number);
            return STATUS_SUCCESS;
        }
    }
    return STATUS_NOT_FOUND;
}

static NTSTATUS carry_out(IRP *irp, IO_STACK_LOCATION *stack, ULONG_PTR *information)
{
    void *buffer = irp->AssociatedIrp.SystemBuffer;
    ULONG in = stack->Parameters.DeviceIoControl.InputBufferLength;
    ULONG out = stack->Parameters.DeviceIoControl.OutputBufferLength;

    switch (stack->Parameters.DeviceIoControl.IoControlCode) {
    case ORDER_READ:
        return read(buffer, in, out, information);
    case ORDER_WRITE:
        return write(buffer, in, out);
    case ORDER_DIRECTORY:
        return directory(buffer, in, out, information);
    case ORDER_REMOVE:
        return remove_node(buffer, in, out);
    case ORDER_SET_PERMISSIONS:
        return set_permissions(buffer, in, out);
    case ORDER_ADD_WATCH:
        return add_watch(buffer, in, out, stack->FileObject, information);
    case ORDER_REMOVE_WATCH:
        return remove_watch(buffer, in, out, stack->FileObject);
    }
    return STATUS_INVALID_DEVICE_REQUEST;
}

static NTSTATUS complete(IRP *irp, NTSTATUS status, ULONG_PTR information)
{
    irp->IoStatus.Status = status;
    irp->IoStatus.Information = information;
    IoCompleteRequest(irp, IO_NO_INCREMENT);
    return status;
}

static NTSTATUS WINAPI on_order(DEVICE_OBJECT *device, IRP *irp)
{
    ULONG_PTR information = 0;
    NTSTATUS status = carry_out(irp, IoGetCurrentIrpStackLocation(irp), &information);

    (void)device;
    return complete(irp, status, information);
}

static NTSTATUS WINAPI on_file(DEVICE_OBJECT *device, IRP *irp)
{
    IO_STACK_LOCATION *stack = IoGetCurrentIrpStackLocation(irp);
    ULONG place;

    (void)device;
    for (place = 0; stack->MajorFunction != IRP_MJ_CREATE && place < MAX_OPEN_WATCHES; place++) {
        if (open_watches[place].file == stack->FileObject) {
            open_watches[place].file = NULL;
            store_unwatch(open_watches[place].number);
        }
    }
    return complete(irp, STATUS_SUCCESS, 0);
}

static NTSTATUS WINAPI on_pnp(DEVICE_OBJECT *device, IRP *irp)
{
    DEVICE_OBJECT *below = *(DEVICE_OBJECT **)device->DeviceExtension;

    if (IoGetCurrentIrpStackLocation(irp)->MinorFunction == IRP_MN_START_DEVICE)
        IoSetDeviceInterfaceState(&interface_name, TRUE);
    IoSkipCurrentIrpStackLocation(irp);
    return IoCallDriver(below, irp);
}

static NTSTATUS WINAPI add_device(DRIVER_OBJECT *driver, DEVICE_OBJECT *below)
{
    DEVICE_OBJECT *device;
    NTSTATUS status = IoCreateDevice(driver, sizeof(below), NULL, FILE_DEVICE_UNKNOWN, 0, FALSE, &device);

    if (status)
        return status;
    *(DEVICE_OBJECT **)device->DeviceExtension = IoAttachDeviceToDeviceStack(device, below);
    status = IoRegisterDeviceInterface(below, &INTERFACE_STORE, NULL, &interface_name);
    device->Flags &= ~DO_DEVICE_INITIALIZING;
    return status;
}

NTSTATUS WINAPI DriverEntry(DRIVER_OBJECT *driver, UNICODE_STRING *path)
{
    (void)path;
    driver->DriverExtension->AddDevice = add_device;
    driver->MajorFunction[IRP_MJ_CREATE] = on_file;
    driver->MajorFunction[IRP_MJ_CLEANUP] = on_file;
    driver->MajorFunction[IRP_MJ_CLOSE] = on_file;
    driver->MajorFunction[IRP_MJ_DEVICE_CONTROL] = on_order;
    driver->MajorFunction[IRP_MJ_PNP] = on_pnp;
    store_start();
    return STATUS_SUCCESS;
}
