"""For machines that cannot take a process's network away: Python itself refuses to use it.

Every Python process that has this folder in `PYTHONPATH` reads the file as it starts.
"""

import socket

connect = socket.socket.connect


def refuse(*_, **__):
    raise OSError("The tests run without a network.")


def local_only(self, address):
    if self.family != socket.AF_UNIX:  # kernels of notebooks talk through files
        refuse()
    connect(self, address)


socket.getaddrinfo = socket.create_connection = refuse
socket.socket.connect = local_only
