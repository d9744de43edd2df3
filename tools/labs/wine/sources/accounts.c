/* The file that accounts.py lays out and reads; see there for its lines. */

#include "accounts.h"

#include <bcrypt.h>
#include <stdio.h>

#define PLACE L"C:\\windows\\system32\\config\\xenward-accounts"
#define UNFINISHED PLACE L".new"

static BOOL parse_hex(const char *text, BYTE *bytes, size_t size)
{
    size_t index;
    unsigned value;

    for (index = 0; index < size; index++) {
        if (sscanf(text + 2 * index, "%2x", &value) != 1)
            return FALSE;
        bytes[index] = (BYTE)value;
    }
    return TRUE;
}

static void format_hex(const BYTE *bytes, size_t size, char *text)
{
    size_t index;

    for (index = 0; index < size; index++)
        sprintf(text + 2 * index, "%02x", bytes[index]);
}

BOOL accounts_read(struct accounts *accounts)
{
    char line[512], name[3 * MAX_NAME], salt[2 * SALT_SIZE + 1], digest[2 * DIGEST_SIZE + 1];
    FILE *file = _wfopen(PLACE, L"rb");
    BOOL done;

    memset(accounts, 0, sizeof(*accounts));
    if (!file)
        return FALSE;
    done = fgets(line, sizeof(line), file)
           && sscanf(line, "policy\t%lu\t%lu", &accounts->minimum_length, &accounts->complexity) == 2;
    while (done && accounts->count < MAX_ACCOUNTS && fgets(line, sizeof(line), file)) {
        struct account *one = &accounts->each[accounts->count++];
        done = sscanf(line, "account\t%lu\t%lu\t%lu\t%lu\t%32[0-9a-f]\t%64[0-9a-f]\t%191[^\n]", &one->rid, &one->flags,
                      &one->expired, &one->times, salt, digest, name) == 7
               && parse_hex(salt, one->salt, SALT_SIZE) && parse_hex(digest, one->digest, DIGEST_SIZE)
               && MultiByteToWideChar(CP_UTF8, 0, name, -1, one->name, MAX_NAME);
    }
    fclose(file);
    return done;
}

BOOL accounts_write(const struct accounts *accounts)
{
    char name[3 * MAX_NAME], salt[2 * SALT_SIZE + 1], digest[2 * DIGEST_SIZE + 1];
    FILE *file = _wfopen(UNFINISHED, L"wb");
    DWORD index;

    if (!file)
        return FALSE;
    fprintf(file, "policy\t%lu\t%lu\n", accounts->minimum_length, accounts->complexity);
    for (index = 0; index < accounts->count; index++) {
        const struct account *one = &accounts->each[index];
        WideCharToMultiByte(CP_UTF8, 0, one->name, -1, name, sizeof(name), NULL, NULL);
        format_hex(one->salt, SALT_SIZE, salt);
        format_hex(one->digest, DIGEST_SIZE, digest);
        fprintf(file, "account\t%lu\t%lu\t%lu\t%lu\t%s\t%s\t%s\n", one->rid, one->flags, one->expired, one->times, salt,
                digest, name);
    }
    if (fclose(file))
        return FALSE;
    return MoveFileExW(UNFINISHED, PLACE, MOVEFILE_REPLACE_EXISTING);
}

struct account *accounts_named(struct accounts *accounts, const WCHAR *name)
{
    DWORD index;

    for (index = 0; index < accounts->count; index++)
        if (!lstrcmpiW(accounts->each[index].name, name))
            return &accounts->each[index];
    return NULL;
}

struct account *accounts_numbered(struct accounts *accounts, DWORD rid)
{
    DWORD index;

    for (index = 0; index < accounts->count; index++)
        if (accounts->each[index].rid == rid)
            return &accounts->each[index];
    return NULL;
}

BOOL account_set_password(struct account *account, const WCHAR *password)
{
    BCRYPT_ALG_HANDLE algorithm;
    BCRYPT_HASH_HANDLE hash;
    BOOL done;

    if (BCryptGenRandom(NULL, account->salt, SALT_SIZE, BCRYPT_USE_SYSTEM_PREFERRED_RNG)
        || BCryptOpenAlgorithmProvider(&algorithm, BCRYPT_SHA256_ALGORITHM, NULL, 0))
        return FALSE;
    done = !BCryptCreateHash(algorithm, &hash, NULL, 0, NULL, 0, 0);
    if (done) {
        done = !BCryptHashData(hash, account->salt, SALT_SIZE, 0)
               && !BCryptHashData(hash, (BYTE *)password, (ULONG)(lstrlenW(password) * sizeof(*password)), 0)
               && !BCryptFinishHash(hash, account->digest, DIGEST_SIZE, 0);
        BCryptDestroyHash(hash);
    }
    BCryptCloseAlgorithmProvider(algorithm, 0);
    account->times++;
    account->expired = 0;
    return done;
}
