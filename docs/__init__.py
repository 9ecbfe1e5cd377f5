"""The site; Python packages of it only write what its pages show."""
