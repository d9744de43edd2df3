/* Two things that Wine tells otherwise than Windows: who the accounts of this machine are, and who owns files.

   LookupAccountSid and LookupAccountName know an Administrator and nobody else, and not that it was renamed. And Wine
   has one owner of files, whoever runs it, which it tells as a user without rights.

   The first instructions of these functions are replaced by a jump to those here, which leave all else to Wine's. What
   they begin with can be run anywhere; where they begin otherwise than known, nothing is changed, and tests fail. */

#include "security.h"

#include "accounts.h"

/* The user that Wine's server takes whoever runs it for: server/token.c. */
#define WINE_USER_RID 1000

#define JUMP 12
#define JUMP_BACK 14
#define MOST_MOVED 16

typedef BOOL WINAPI lookup_sid(const WCHAR *, SID *, WCHAR *, DWORD *, WCHAR *, DWORD *, SID_NAME_USE *);
typedef BOOL WINAPI lookup_name(const WCHAR *, const WCHAR *, SID *, DWORD *, WCHAR *, DWORD *, SID_NAME_USE *);

typedef LONG WINAPI query(HANDLE, SECURITY_INFORMATION, SECURITY_DESCRIPTOR *, ULONG, ULONG *);

/* Instructions, and which of their bytes are the same everywhere. */
struct beginning {
    unsigned length;
    BYTE bytes[MOST_MOVED], same[MOST_MOVED];
};

/* Eight registers are pushed. */
static const struct beginning pushes = {
    12,
    {0x41, 0x57, 0x41, 0x56, 0x41, 0x55, 0x41, 0x54, 0x55, 0x57, 0x56, 0x53},
    {1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1},
};

/* mov r10, rcx; mov eax, the call's number; test byte [0x7ffe0308], 1 */
static const struct beginning system_call = {
    16,
    {0x4c, 0x8b, 0xd1, 0xb8, 0, 0, 0, 0, 0xf6, 0x04, 0x25, 0x08, 0x03, 0xfe, 0x7f, 0x01},
    {1, 1, 1, 1, 0, 0, 0, 0, 1, 1, 1, 1, 1, 1, 1, 1},
};

static const SID_IDENTIFIER_AUTHORITY authority = {SECURITY_NT_AUTHORITY};

static lookup_sid *others_name;
static lookup_name *others_sid;
static query *others_security;

void machine_sid(void *sid)
{
    /* The one that Wine's server takes for this machine. */
    InitializeSid(sid, (SID_IDENTIFIER_AUTHORITY *)&authority, 4);
    *GetSidSubAuthority(sid, 0) = SECURITY_NT_NON_UNIQUE;
    *GetSidSubAuthority(sid, 1) = *GetSidSubAuthority(sid, 2) = *GetSidSubAuthority(sid, 3) = 0;
}

void account_sid(DWORD rid, void *sid)
{
    machine_sid(sid);
    *GetSidSubAuthorityCount(sid) = 5;
    *GetSidSubAuthority(sid, 4) = rid;
}

/* Whether both texts fit. If not, both sizes become what is needed, with the end of the text. */
static BOOL give(WCHAR *name, DWORD *name_size, const WCHAR *given, WCHAR *domain, DWORD *domain_size)
{
    WCHAR machine[MAX_COMPUTERNAME_LENGTH + 1];
    DWORD length = MAX_COMPUTERNAME_LENGTH + 1, name_length = (DWORD)lstrlenW(given);

    GetComputerNameW(machine, &length);
    if (!name || *name_size <= name_length || !domain || *domain_size <= length) {
        *name_size = name_length + 1;
        *domain_size = length + 1;
        SetLastError(ERROR_INSUFFICIENT_BUFFER);
        return FALSE;
    }
    lstrcpyW(name, given);
    *name_size = name_length;
    lstrcpyW(domain, machine);
    *domain_size = length;
    return TRUE;
}

static BOOL WINAPI name_of(const WCHAR *system, SID *sid, WCHAR *name, DWORD *name_size, WCHAR *domain,
                           DWORD *domain_size, SID_NAME_USE *use)
{
    BYTE ours[SECURITY_MAX_SID_SIZE];
    struct accounts accounts;
    struct account *account = NULL;

    account_sid(0, ours);
    if (EqualPrefixSid(sid, ours) && accounts_read(&accounts))
        account = accounts_numbered(&accounts, *GetSidSubAuthority(sid, 4));
    if (!account)
        return others_name(system, sid, name, name_size, domain, domain_size, use);
    *use = SidTypeUser;
    return give(name, name_size, account->name, domain, domain_size);
}

static BOOL WINAPI sid_of(const WCHAR *system, const WCHAR *name, SID *sid, DWORD *sid_size, WCHAR *domain,
                          DWORD *domain_size, SID_NAME_USE *use)
{
    WCHAR given[MAX_NAME];
    BYTE ours[SECURITY_MAX_SID_SIZE];
    struct accounts accounts;
    struct account *account = accounts_read(&accounts) ? accounts_named(&accounts, name) : NULL;
    DWORD size = *sid_size, unused = MAX_NAME;

    if (!account)
        return others_sid(system, name, sid, sid_size, domain, domain_size, use);
    account_sid(account->rid, ours);
    *use = SidTypeUser;
    *sid_size = GetLengthSid(ours);
    if (!sid || size < *sid_size)
        domain = NULL;
    if (!give(given, &unused, account->name, domain, domain_size))
        return FALSE;
    return CopySid(*sid_size, sid, ours);
}

/* Files of whoever runs Wine belong to a user of its own making. To a program here they belong to the administrators,
   as what SYSTEM makes does. The identifier is the shorter one, so it can be put in the other's place. */
static void give_to_administrators(SID *sid)
{
    BYTE everybody[SECURITY_MAX_SID_SIZE];

    account_sid(WINE_USER_RID, everybody);
    if (sid && EqualSid(sid, everybody)) {
        InitializeSid(sid, (SID_IDENTIFIER_AUTHORITY *)&authority, 2);
        *GetSidSubAuthority(sid, 0) = SECURITY_BUILTIN_DOMAIN_RID;
        *GetSidSubAuthority(sid, 1) = DOMAIN_ALIAS_RID_ADMINS;
    }
}

/* Put the parts of a self-relative descriptor next to each other again, after one has become shorter. */
static void close_gaps(SECURITY_DESCRIPTOR *descriptor)
{
    const SECURITY_DESCRIPTOR_CONTROL kept = SE_DACL_AUTO_INHERITED | SE_DACL_PROTECTED;
    SECURITY_DESCRIPTOR_CONTROL control;
    SECURITY_DESCRIPTOR absolute;
    BOOL present, defaulted;
    DWORD revision, length = 0;
    ACL *list;
    void *whole, *sid;

    InitializeSecurityDescriptor(&absolute, SECURITY_DESCRIPTOR_REVISION);
    if (GetSecurityDescriptorOwner(descriptor, &sid, &defaulted) && sid)
        SetSecurityDescriptorOwner(&absolute, sid, defaulted);
    if (GetSecurityDescriptorGroup(descriptor, &sid, &defaulted) && sid)
        SetSecurityDescriptorGroup(&absolute, sid, defaulted);
    if (GetSecurityDescriptorDacl(descriptor, &present, &list, &defaulted) && present)
        SetSecurityDescriptorDacl(&absolute, TRUE, list, defaulted);
    if (GetSecurityDescriptorSacl(descriptor, &present, &list, &defaulted) && present)
        SetSecurityDescriptorSacl(&absolute, TRUE, list, defaulted);
    GetSecurityDescriptorControl(descriptor, &control, &revision);
    SetSecurityDescriptorControl(&absolute, kept, control & kept);
    MakeSelfRelativeSD(&absolute, NULL, &length);
    whole = HeapAlloc(GetProcessHeap(), 0, length);
    if (whole && MakeSelfRelativeSD(&absolute, whole, &length))
        memcpy(descriptor, whole, length);
    HeapFree(GetProcessHeap(), 0, whole);
}

static LONG WINAPI query_security(HANDLE handle, SECURITY_INFORMATION wanted, SECURITY_DESCRIPTOR *descriptor,
                                  ULONG length, ULONG *needed)
{
    LONG status = others_security(handle, wanted, descriptor, length, needed);
    BOOL present = FALSE, defaulted;
    ACL *list = NULL;
    SID *owner = NULL;
    void *entry;
    DWORD index;

    if (status)
        return status;
    if (GetSecurityDescriptorOwner(descriptor, (void **)&owner, &defaulted))
        give_to_administrators(owner);
    GetSecurityDescriptorDacl(descriptor, &present, &list, &defaulted);
    for (index = 0; present && list && index < list->AceCount; index++)
        if (GetAce(list, index, &entry))
            give_to_administrators((SID *)&((ACCESS_ALLOWED_ACE *)entry)->SidStart);
    close_gaps(descriptor);
    return status;
}

/* Absolute, by a register that holds nothing where a function begins: mov rax, to; jmp rax */
static void jump(BYTE *from, const void *to)
{
    from[0] = 0x48;
    from[1] = 0xb8;
    memcpy(from + 2, &to, sizeof(to));
    from[10] = 0xff;
    from[11] = 0xe0;
}

/* Absolute, and longer, by no register: jmp [rip], and the address behind it. */
static void jump_back(BYTE *from, const void *to)
{
    static const BYTE instruction[] = {0xff, 0x25, 0, 0, 0, 0};

    memcpy(from, instruction, sizeof(instruction));
    memcpy(from + sizeof(instruction), &to, sizeof(to));
}

static BOOL begins_with(const BYTE *function, const struct beginning *beginning)
{
    unsigned index;

    for (index = 0; index < beginning->length; index++)
        if (beginning->same[index] && function[index] != beginning->bytes[index])
            return FALSE;
    return TRUE;
}

/* Have calls of a function go to another one, and give `original` a way to the function as it was. */
static void replace(const WCHAR *library, const char *name, const struct beginning *beginning, const void *by,
                    void **original)
{
    BYTE *function = (BYTE *)GetProcAddress(LoadLibraryW(library), name);
    BYTE *way = VirtualAlloc(NULL, MOST_MOVED + JUMP_BACK, MEM_COMMIT | MEM_RESERVE, PAGE_EXECUTE_READWRITE);
    DWORD protection;

    if (!function || !way || !begins_with(function, beginning)
        || !VirtualProtect(function, JUMP, PAGE_EXECUTE_READWRITE, &protection))
        return;
    memcpy(way, function, beginning->length);
    jump_back(way + beginning->length, function + beginning->length);
    *original = way;
    jump(function, by);
    VirtualProtect(function, JUMP, protection, &protection);
}

void stand_in_for_security(void)
{
    HMODULE kept;

    /* What calls are sent to must stay, also when nobody uses the library any more. */
    GetModuleHandleExW(GET_MODULE_HANDLE_EX_FLAG_PIN | GET_MODULE_HANDLE_EX_FLAG_FROM_ADDRESS, (WCHAR *)&replace, &kept);
    replace(L"advapi32.dll", "LookupAccountSidW", &pushes, name_of, (void **)&others_name);
    replace(L"advapi32.dll", "LookupAccountNameW", &pushes, sid_of, (void **)&others_sid);
    replace(L"ntdll.dll", "NtQuerySecurityObject", &system_call, query_security, (void **)&others_security);
}
