"""One campaign, many workers: a server that writes it, and its clients.

The server is the campaign's one writer. A worker that repeats a request, because its answer was
lost or the server was killed meanwhile, is answered as the first time: results are compared with
what is recorded, and which trials a request was given is recorded with them.
"""
