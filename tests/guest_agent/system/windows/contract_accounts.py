"""What api.Accounts promises, as far as nobody's password has to be changed for it."""

from __future__ import annotations

from .contract import World, check, fails


@check()
def sids(world: World, directory: str) -> None:
    accounts = world.api.accounts
    assert accounts.own_sid().startswith("S-1-5-")
    assert accounts.machine_sid().startswith("S-1-5-21-")
    assert accounts.name_of(accounts.machine_sid() + "-500")
    with fails(1332):
        accounts.name_of("S-1-5-21-4-4-4-4444")
    with fails(1332):
        accounts.sid_of("no such account")


@check()
def nobody(world: World, directory: str) -> None:
    with fails(2221):
        world.api.accounts.account("no such account")


@check(needs_accounts=True)
def the_administrator(world: World, directory: str) -> None:
    accounts = world.api.accounts
    sid = accounts.machine_sid() + "-500"
    account = accounts.account(accounts.name_of(sid))
    assert (account.sid, account.rid) == (sid, 500)
    assert accounts.sid_of(accounts.name_of(sid)) == sid


@check(needs_accounts=True)
def changing_nobody(world: World, directory: str) -> None:
    accounts = world.api.accounts
    with fails(2221):
        accounts.set_password("no such account", "Pa55-word-of-nobody")
    with fails(2221):
        accounts.set_flags("no such account", 0x201)
    with fails(2221):
        accounts.expire_password("no such account")
    assert accounts.minimum_password_length() >= 0
