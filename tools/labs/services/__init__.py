"""A PostgreSQL, a MariaDB or a RabbitMQ of a test's own, which it may stop, kill and freeze as it likes.

with private_postgresql(tmp_path) as server:
    engine = create_engine(server.url)
    server.kill()
    server.start()

The programs are those of Debian's packages on this machine; its own instances and their configuration are not touched.
"""

from .mariadb import MariaDB, private_mariadb
from .postgresql import PostgreSQL, private_postgresql
from .rabbitmq import RabbitMQ, private_rabbitmq

__all__ = ["MariaDB", "PostgreSQL", "RabbitMQ", "private_mariadb", "private_postgresql", "private_rabbitmq"]
