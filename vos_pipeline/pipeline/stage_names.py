"""The stages that a frame passes through: what each is called, and the folder of its labels."""

REPEATED, INSTANCE, SPN, CRAF, FLOW = STAGES = (
    "first mask repeated",
    "instance nets",
    "+ SPN",
    "+ CRAF",
    "+ flow filter",
)
FOREGROUND = "foreground net"  # the first part of INSTANCE, timed on its own as well
TUNING = "fine-tuning"  # of nets on first frames, before the stages
PARTS = (TUNING, FOREGROUND, *STAGES)  # what is timed
FOLDERS = {REPEATED: "first-mask", INSTANCE: "instance", SPN: "spn", CRAF: "craf", FLOW: "flow"}
FINAL = {"none": SPN, "craf": CRAF, "flow": FLOW}  # the last stage with each of vos_pipeline.settings.FILTERS
