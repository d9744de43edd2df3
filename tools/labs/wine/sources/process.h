/* What the program that asks a driver for something has: in Wine it is another process. */

#ifndef XENWARD_PROCESS_H
#define XENWARD_PROCESS_H

/* Whether `length` bytes at an address of that process could be copied. */
int process_read(unsigned long process, const void *address, void *copy, unsigned long length);

/* A handle of this process for an event of that one. NULL when there is no such event. */
void *process_event(unsigned long process, void *handle);

#endif
