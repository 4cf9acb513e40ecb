import getpass

try:
    import only_in_venv as place
except ImportError:
    place = None


def app(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain")])
    kind = "wsgi in a venv" if place else "wsgi"
    called = " ".join(environ[name] for name in ("REQUEST_METHOD", "REQUEST_URI"))
    return [f"{kind} as {getpass.getuser()}: {called} is {environ['PATH_INFO']}\n".encode()]
