"""Lists the drivers for which the installed SQLAlchemy has a dialect."""

import sqlalchemy

SQLALCHEMY_14 = sqlalchemy.__version__.startswith("1.4")
SYNC = ["psycopg2"] if SQLALCHEMY_14 else ["psycopg2", "psycopg"]
ASYNC = ["asyncpg"] if SQLALCHEMY_14 else ["asyncpg", "psycopg_async"]
