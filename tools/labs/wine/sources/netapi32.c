/* A stand-in for netapi32.dll: the calls that manage accounts, which Wine does not have (NetUserSetInfo ends the
   program there). Real programs and pywin32 call them as on Windows; behind them is a file (accounts.c), with the two
   rules of a password policy that NetUserSetInfo documents: length and complexity.

   Levels and errors: lmaccess.h and lmerr.h of the Windows SDK. What is not here is a stub of Wine's that ends the
   program that calls it. */

#include "accounts.h"
#include "security.h"

#include <lm.h>

static SRWLOCK turn = SRWLOCK_INIT;

NET_API_STATUS WINAPI NetApiBufferAllocate(DWORD size, void **buffer)
{
    *buffer = HeapAlloc(GetProcessHeap(), HEAP_ZERO_MEMORY, size);
    return *buffer ? NERR_Success : ERROR_NOT_ENOUGH_MEMORY;
}

NET_API_STATUS WINAPI NetApiBufferFree(void *buffer)
{
    HeapFree(GetProcessHeap(), 0, buffer);
    return NERR_Success;
}

NET_API_STATUS WINAPI NetApiBufferSize(void *buffer, DWORD *size)
{
    *size = (DWORD)HeapSize(GetProcessHeap(), 0, buffer);
    return NERR_Success;
}

NET_API_STATUS WINAPI NetGetJoinInformation(const WCHAR *server, WCHAR **name, NETSETUP_JOIN_STATUS *status)
{
    static const WCHAR workgroup[] = L"WORKGROUP";

    (void)server;
    *status = NetSetupWorkgroupName;
    if (NetApiBufferAllocate(sizeof(workgroup), (void **)name))
        return ERROR_NOT_ENOUGH_MEMORY;
    memcpy(*name, workgroup, sizeof(workgroup));
    return NERR_Success;
}

NET_API_STATUS WINAPI NetUserModalsGet(const WCHAR *server, DWORD level, BYTE **buffer)
{
    struct accounts accounts;

    (void)server;
    if (!accounts_read(&accounts))
        return NERR_InternalError;
    if (level == 0) {
        USER_MODALS_INFO_0 *info;
        if (NetApiBufferAllocate(sizeof(*info), (void **)&info))
            return ERROR_NOT_ENOUGH_MEMORY;
        info->usrmod0_min_passwd_len = accounts.minimum_length;
        info->usrmod0_max_passwd_age = 42 * 24 * 3600;
        info->usrmod0_force_logoff = TIMEQ_FOREVER;
        *buffer = (BYTE *)info;
        return NERR_Success;
    }
    if (level == 2) {
        struct {
            USER_MODALS_INFO_2 info;
            WCHAR name[MAX_COMPUTERNAME_LENGTH + 1];
            BYTE sid[SECURITY_MAX_SID_SIZE];
        } *all;
        DWORD length = MAX_COMPUTERNAME_LENGTH + 1;
        if (NetApiBufferAllocate(sizeof(*all), (void **)&all))
            return ERROR_NOT_ENOUGH_MEMORY;
        GetComputerNameW(all->name, &length);
        machine_sid(all->sid);
        all->info.usrmod2_domain_name = all->name;
        all->info.usrmod2_domain_id = all->sid;
        *buffer = (BYTE *)all;
        return NERR_Success;
    }
    return ERROR_INVALID_LEVEL;
}

/* A record of level 4, which all others are parts of, and what it points to. */
struct whole {
    USER_INFO_4 info;
    WCHAR name[MAX_NAME];
    WCHAR empty[1];
    BYTE sid[SECURITY_MAX_SID_SIZE];
};

static void describe(const struct account *account, struct whole *whole)
{
    USER_INFO_4 *info = &whole->info;

    lstrcpyW(whole->name, account->name);
    account_sid(account->rid, whole->sid);
    info->usri4_name = whole->name;
    info->usri4_priv = account->rid == DOMAIN_USER_RID_ADMIN ? USER_PRIV_ADMIN : USER_PRIV_USER;
    info->usri4_home_dir = info->usri4_comment = info->usri4_script_path = info->usri4_full_name = info->usri4_usr_comment
        = info->usri4_parms = info->usri4_workstations = info->usri4_logon_server = info->usri4_profile
        = info->usri4_home_dir_drive = whole->empty;
    info->usri4_flags = account->flags;
    info->usri4_acct_expires = TIMEQ_FOREVER;
    info->usri4_max_storage = USER_MAXSTORAGE_UNLIMITED;
    info->usri4_user_sid = whole->sid;
    info->usri4_primary_group_id = DOMAIN_GROUP_RID_USERS;
    info->usri4_password_expired = account->expired;
}

NET_API_STATUS WINAPI NetUserGetInfo(const WCHAR *server, const WCHAR *name, DWORD level, BYTE **buffer)
{
    struct accounts accounts;
    struct account *account;
    struct whole *whole;

    (void)server;
    if (!accounts_read(&accounts))
        return NERR_InternalError;
    account = accounts_named(&accounts, name);
    if (!account)
        return NERR_UserNotFound;
    if (NetApiBufferAllocate(sizeof(*whole), (void **)&whole))
        return ERROR_NOT_ENOUGH_MEMORY;
    describe(account, whole);
    *buffer = (BYTE *)whole;
    switch (level) {
    case 0:
    case 1:
    case 2:
    case 4:
        /* The first members of level 4 are those of 0, 1 and 2. */
        return NERR_Success;
    case 3: {
        USER_INFO_4 info = whole->info;
        USER_INFO_3 *shown = (USER_INFO_3 *)whole;
        shown->usri3_user_id = account->rid;
        shown->usri3_primary_group_id = info.usri4_primary_group_id;
        shown->usri3_profile = info.usri4_profile;
        shown->usri3_home_dir_drive = info.usri4_home_dir_drive;
        shown->usri3_password_expired = info.usri4_password_expired;
        return NERR_Success;
    }
    case 23: {
        USER_INFO_4 info = whole->info;
        USER_INFO_23 *shown = (USER_INFO_23 *)whole;
        shown->usri23_full_name = info.usri4_full_name;
        shown->usri23_comment = info.usri4_comment;
        shown->usri23_flags = info.usri4_flags;
        shown->usri23_user_sid = info.usri4_user_sid;
        return NERR_Success;
    }
    }
    NetApiBufferFree(whole);
    return ERROR_INVALID_LEVEL;
}

/* Three of the four kinds of characters, as the policy "must meet complexity requirements" wants them. */
static BOOL is_complex(const WCHAR *password)
{
    BOOL upper = FALSE, lower = FALSE, digit = FALSE, other = FALSE;

    for (; *password; password++) {
        if (IsCharUpperW(*password))
            upper = TRUE;
        else if (IsCharLowerW(*password))
            lower = TRUE;
        else if (*password >= '0' && *password <= '9')
            digit = TRUE;
        else
            other = TRUE;
    }
    return upper + lower + digit + other >= 3;
}

static NET_API_STATUS set_password(const struct accounts *accounts, struct account *account, const WCHAR *password)
{
    if (!password || lstrlenW(password) > PWLEN)
        return ERROR_INVALID_PARAMETER;
    if ((DWORD)lstrlenW(password) < accounts->minimum_length || (accounts->complexity && !is_complex(password)))
        return NERR_PasswordTooShort;
    return account_set_password(account, password) ? NERR_Success : NERR_InternalError;
}

static NET_API_STATUS set_info(const WCHAR *name, DWORD level, const BYTE *buffer)
{
    struct accounts accounts;
    struct account *account;
    NET_API_STATUS status = NERR_Success;

    if (!accounts_read(&accounts))
        return NERR_InternalError;
    account = accounts_named(&accounts, name);
    if (!account)
        return NERR_UserNotFound;
    switch (level) {
    case 1003:
        status = set_password(&accounts, account, ((const USER_INFO_1003 *)buffer)->usri1003_password);
        break;
    case 1008:
        account->flags = ((const USER_INFO_1008 *)buffer)->usri1008_flags;
        break;
    case 3:
    case 4: {
        /* Both begin alike. What stands behind the flags and is not kept in the file is not looked at. */
        const USER_INFO_3 *info = (const USER_INFO_3 *)buffer;
        if (info->usri3_password)
            status = set_password(&accounts, account, info->usri3_password);
        account->flags = info->usri3_flags;
        account->expired = level == 3 ? info->usri3_password_expired != 0
                                      : ((const USER_INFO_4 *)buffer)->usri4_password_expired != 0;
        break;
    }
    default:
        return ERROR_INVALID_LEVEL;
    }
    if (status)
        return status;
    return accounts_write(&accounts) ? NERR_Success : NERR_InternalError;
}

NET_API_STATUS WINAPI NetUserSetInfo(const WCHAR *server, const WCHAR *name, DWORD level, BYTE *buffer, DWORD *parameter)
{
    NET_API_STATUS status;

    (void)server;
    if (parameter)
        *parameter = 0;
    AcquireSRWLockExclusive(&turn);
    status = set_info(name, level, buffer);
    ReleaseSRWLockExclusive(&turn);
    return status;
}

BOOL WINAPI DllMain(HINSTANCE instance, DWORD reason, void *reserved)
{
    (void)reserved;
    if (reason == DLL_PROCESS_ATTACH) {
        DisableThreadLibraryCalls(instance);
        stand_in_for_security();
    }
    return TRUE;
}
