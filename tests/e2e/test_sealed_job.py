"""The main job under a sealing profile, with a broker and a worker in processes of their own."""

from tests.sealed import python_opener

OPENER = python_opener()
