"""Protocols that come with the library: what is spoken over a transport, whichever that is.

Importing this package imports none of them; each module says what it has and which document it follows.
"""
