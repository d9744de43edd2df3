"""Alembic's folder; a package so that it is installed with the rest. Run by compute_driver.db.migrate only."""
