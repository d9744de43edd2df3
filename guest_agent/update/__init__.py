"""The agent's update of itself: a signed artefact is checked, installed beside the packaged agent, tried, and kept.

statement.py says what a signature covers, artefact.py what an artefact is, download.py how one is fetched,
installation.py how it gets to the disk, rehearsal.py how new code is tried before it is trusted with the guest, and
running.py what this process knows of its own start. Which version is started is ../launch.py's to choose.
"""
