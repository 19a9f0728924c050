"""Store: the tables and the three logs in SQL, written in one fenced transaction per batch (SQLAlchemy Core).

SQLite if one server is enough, PostgreSQL if several share one store, with the same code and the same schema. Its
arguments and results are rows, changes and log entries of `compass.model`, never SQL objects.
"""
