/* The accounts of this machine, in a file. */

#ifndef XENWARD_ACCOUNTS_H
#define XENWARD_ACCOUNTS_H

#include <windows.h>

#define MAX_ACCOUNTS 32
#define MAX_NAME 64
#define SALT_SIZE 16
#define DIGEST_SIZE 32

/* times: how often its password was set. digest: SHA-256 of the salt and the password in UTF-16; the password itself
   is nowhere. */
struct account {
    WCHAR name[MAX_NAME];
    DWORD rid, flags, expired, times;
    BYTE salt[SALT_SIZE], digest[DIGEST_SIZE];
};

struct accounts {
    DWORD minimum_length, complexity, count;
    struct account each[MAX_ACCOUNTS];
};

/* FALSE when the file is missing or cannot be understood. */
BOOL accounts_read(struct accounts *accounts);

BOOL accounts_write(const struct accounts *accounts);

/* NULL when there is none. Names are compared without regard to case. */
struct account *accounts_named(struct accounts *accounts, const WCHAR *name);
struct account *accounts_numbered(struct accounts *accounts, DWORD rid);

BOOL account_set_password(struct account *account, const WCHAR *password);

#endif
