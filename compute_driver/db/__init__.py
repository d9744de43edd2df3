"""The database: what is known of every instance, and the record of everything that was done to one.

Others use `Repository`, the plain records it returns, and `migrate`; ORM objects do not leave this package.
"""
