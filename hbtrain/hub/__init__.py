"""Data sets by name: where their files are, at which revision, under which licence; fetching them, checked."""

from hbtrain.hub.data_set import DataSet, Download, Repository
from hbtrain.hub.fetching import fetch, fetch_listed, languages_here, where
from hbtrain.hub.files import File, Listing, listing
from hbtrain.hub.folders import Fetched
from hbtrain.hub.names import Selection, catalogue, data_set, data_sets, parse

__all__ = [
    "DataSet",
    "Download",
    "Fetched",
    "File",
    "Listing",
    "Repository",
    "Selection",
    "catalogue",
    "data_set",
    "data_sets",
    "fetch",
    "fetch_listed",
    "languages_here",
    "listing",
    "parse",
    "where",
]
