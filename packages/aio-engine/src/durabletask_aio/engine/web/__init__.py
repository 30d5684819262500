"""The page: instances, entities and the engine itself in a browser, on an engine in this process or elsewhere.

It needs the extra `ui`, and for `/metrics` the extra `metrics`.  `server.PageServer` listens; `app.create_app` makes
the ASGI application, for a server of one's own.
"""
