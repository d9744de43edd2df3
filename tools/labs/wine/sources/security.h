/* Whom security identifiers (SIDs) stand for. */

#ifndef XENWARD_SECURITY_H
#define XENWARD_SECURITY_H

#include <windows.h>

/* That of this machine, and that of an account of it. Both have room for SECURITY_MAX_SID_SIZE. */
void machine_sid(void *sid);
void account_sid(DWORD rid, void *sid);

/* Have Wine tell who the accounts are and who owns files as Windows does, from now on and in this process. */
void stand_in_for_security(void);

#endif
