"""The pipeline: the speed of its evaluation, and the choices that CRAF leaves open."""
