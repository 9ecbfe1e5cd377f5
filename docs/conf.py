"""Sphinx configuration: `make docs` builds the site, runs its doctests, and takes a warning for an error."""

from __future__ import annotations

import warnings

from sphinx_gallery.sorting import ExplicitOrder

import spn

project = "spn"
author = copyright = "the authors of spatial-propagation"
version = release = spn.__version__

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.doctest",
    "sphinx.ext.mathjax",
    "sphinx.ext.napoleon",
    "sphinxcontrib.bibtex",
    "sphinx-mathjax-offline",  # formulas need no network to be read
    "sphinx_copybutton",
    "sphinx_gallery.gen_gallery",
]
exclude_patterns = ["_build", "_generated", "gallery"]
nitpicky = True
# Types of other libraries: their inventories would have to be downloaded.
nitpick_ignore = [("py:mod", "spn.functional")]  # documented under the package's name
nitpick_ignore_regex = [
    ("py:.*", r"(torch|nn|os|optional|Tensor|float32|float64|float16|bfloat16)(\..*)?"),
]

# ---- Pages -------------------------------------------------------------------------------------------------

myst_enable_extensions = ["dollarmath", "amsmath", "attrs_inline", "colon_fence", "deflist"]
myst_heading_anchors = 3
bibtex_bibfiles = ["references.bib"]
bibtex_default_style = "plain"

# ---- Docstrings --------------------------------------------------------------------------------------------

autodoc_member_order = "bysource"
autodoc_typehints = "none"
napoleon_custom_sections = ["Shape", "Reference"]
doctest_global_setup = """
import torch
import spn
from spn import *
torch.manual_seed(0)
"""

# ---- Gallery -----------------------------------------------------------------------------------------------

# A user meets these warnings too, and can do nothing about them either.
warnings.filterwarnings("ignore", category=DeprecationWarning, module="torch")
sphinx_gallery_conf = {
    "examples_dirs": "gallery",
    "gallery_dirs": "auto_gallery",
    "filename_pattern": "/plot_",
    "within_subsection_order": ExplicitOrder(
        [
            "plot_refine_mask.py",
            "plot_segmentation_net.py",
            "plot_depth_completion.py",
            "plot_token_mixing.py",
            "plot_backbone.py",
            "plot_segment_video.py",
            "plot_segmenter.py",
        ]
    ),
    "abort_on_example_error": True,
    "capture_repr": (),  # what is printed is shown, what a last line happens to return is not
    "download_all_examples": False,
    "remove_config_comments": True,
    "show_signature": False,
    "show_memory": False,
    "min_reported_time": 0,
}

# ---- Copying -----------------------------------------------------------------------------------------------

copybutton_exclude = ".linenos, .gp, .go"  # neither prompts nor output

# ---- Theme -------------------------------------------------------------------------------------------------

html_theme = "furo"
html_title = f"spn {release}"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_theme_options = {"navigation_with_keys": True}
