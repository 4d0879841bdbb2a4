"""Data sets and models of a hub: found, checked, fetched at one commit, kept for offline use.

A name and a revision are first resolved to a commit and the list of its files (`listing`); then
only the files that are needed are downloaded, at that commit (`fetch`), into the hub client's own
cache. What cannot be had is an error of :mod:`ilubench.errors` that says which of the many reasons
it was: the libraries above the client fold most of them into one.
"""

from ilubench.data.hub.parts import part_files
from ilubench.data.hub.refusals import asking, refusal
from ilubench.data.hub.repository import Listing, Repository, access, cached, fetch, listing

__all__ = [
    "Listing",
    "Repository",
    "access",
    "asking",
    "cached",
    "fetch",
    "listing",
    "part_files",
    "refusal",
]
