"""The store: the tables and the three logs in SQL, written in one fenced transaction per batch (SQLAlchemy Core).

SQLite when one server is enough, PostgreSQL when several share one store; the same code, the same schema. What
crosses its border are rows, changes and log entries of `compass.model`, never an SQL object.
"""
