"""Names of the stages of the pipeline, and the folders of their labels."""

REPEATED, INSTANCE, SPN, CRAF, FLOW = STAGES = (
    "first mask repeated",
    "instance nets",
    "+ SPN",
    "+ CRAF",
    "+ flow filter",
)
FOREGROUND = "foreground net"  # the first part of INSTANCE, also timed separately
TUNING = "fine-tuning"  # of nets on first frames, before the stages
PARTS = (TUNING, FOREGROUND, *STAGES)  # all timed parts
FOLDERS = {REPEATED: "first-mask", INSTANCE: "instance", SPN: "spn", CRAF: "craf", FLOW: "flow"}
FINAL = {"none": SPN, "craf": CRAF, "flow": FLOW}  # the last stage with each of vos_pipeline.settings.FILTERS
