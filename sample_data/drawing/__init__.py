"""Draws the sample images: tissue-like pictures with exact instance labels.

shapes.py       one nucleus: an irregular closed outline, and its raster
scene.py        many nuclei: who is in front, who may touch whom, the labels
fields.py       smooth noise, and noise combed along a flow (fibres)
optics.py       blur, camera, stain absorption, JPEG blocks
fluorescence.py the nuclear-stain picture
lamin.py        the nuclear-envelope picture
glands.py       the anatomy of the H&E picture: glands, lumens, vessels, flow of the stroma
tissue.py       what lies between its nuclei
histology.py    the H&E picture: its nuclei, and the light through it
multiplex.py    the 8-channel picture
files.py        OME-TIFF in, OME-TIFF out
"""
