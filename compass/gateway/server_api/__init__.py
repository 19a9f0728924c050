"""HTTPS API of the server, for administrators, dashboards and the console."""
