import getpass


def application(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [f"uwsgi.ini as {getpass.getuser()}: {environ['REQUEST_METHOD']} {environ['REQUEST_URI']}\n".encode()]
