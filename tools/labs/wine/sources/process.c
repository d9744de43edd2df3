#include "process.h"

#include <windows.h>

int process_read(unsigned long process, const void *address, void *copy, unsigned long length)
{
    HANDLE opened = OpenProcess(PROCESS_VM_READ, FALSE, process);
    BOOL done = opened && ReadProcessMemory(opened, address, copy, length, NULL);

    if (opened)
        CloseHandle(opened);
    return done;
}

void *process_event(unsigned long process, void *handle)
{
    HANDLE event = NULL, opened = OpenProcess(PROCESS_DUP_HANDLE, FALSE, process);

    if (!opened)
        return NULL;
    if (!DuplicateHandle(opened, handle, GetCurrentProcess(), &event, EVENT_MODIFY_STATE, FALSE, 0))
        event = NULL;
    CloseHandle(opened);
    return event;
}
