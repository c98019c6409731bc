"""Serving: an OpenAI-compatible server over one engine thread, whose memory does not grow with the conversation.

`engine.py` decodes for everyone with the loop of `runnel.decode_loop`; `app.py` is the HTTP surface; `server.py` binds
them to an address. Nothing here is imported by the rest of the house but the command line. Needs the extra
`runnel[serve]`.
"""
